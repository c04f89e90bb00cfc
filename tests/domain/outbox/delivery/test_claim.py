"""Claiming: each lane with due rows is leased to one worker at a time, and a claim waits for nobody."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text, update

from domain import outbox
from domain.outbox import CommitHorizon, Delivered, Failed, History, ProbeTaken, Rejected
from domain.outbox.delivery.lanes import LEASE
from domain.outbox.delivery.outcomes import LONGEST_RETRY_AFTER
from domain.outbox.table import LANES, lanes, waiting
from domain.outbox.table import outbox as table
from domain.runtime.database import now
from tests.domain.outbox.conftest import clock, set_shop, stored_lane
from tests.support.builders import Db
from tests.support.outbox import (
    SHOP,
    a_lane,
    a_retry_policy,
    an_aggregate,
    claimed,
    destination,
    fetched,
    recorded_for,
    released,
    settled,
    states,
    time_passes,
    with_shop,
)
from tests.support.waiting import wait_until_blocked


def test_only_a_lane_with_due_rows_is_claimed(shop: Db) -> None:
    assert claimed(shop) is None
    recorded_for(shop, an_aggregate(5))

    lane = a_lane(shop)

    assert (lane.destination, lane.number, lane.epoch, lane.probing, lane.has_due_rows) == (SHOP, 5, 1, False, False)


def test_rows_that_are_processed_dead_or_waiting_do_not_make_a_lane_due(shop: Db) -> None:
    recorded_for(shop, an_aggregate(5), an_aggregate(5), an_aggregate(5))
    lane = a_lane(shop)
    first, second, third = fetched(shop, lane)
    settled(shop, lane, [(first, Delivered()), (second, Rejected("no")), (third, Failed("later"))])
    with shop.begin() as session:
        in_an_hour = now(session) + timedelta(hours=1)
        session.execute(update(table).where(waiting).values(available_at=in_an_hour))
    released(shop, lane)

    assert states(shop) == ["processed", "dead", "waiting"]
    assert claimed(shop) is None


def test_a_waiting_row_whose_time_has_come_makes_its_lane_due(shop: Db) -> None:
    recorded_for(shop, an_aggregate(5))
    lane = a_lane(shop)
    settled(shop, lane, [(fetched(shop, lane)[0], Failed("later"))])
    released(shop, lane)

    time_passes(shop)

    assert a_lane(shop).has_due_rows


def test_a_lane_is_leased_by_the_clock_of_the_database(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    with shop.begin() as session:
        now(session)
        before = clock(shop)  # later than the `now()` of the transaction that claims
        lane = outbox.claim(session, [SHOP], "me", CommitHorizon())
    after = clock(shop)

    assert lane is not None
    leased_until = stored_lane(shop, lane).leased_until
    assert leased_until is not None
    assert before + LEASE <= leased_until <= after + LEASE


def test_a_leased_lane_is_claimed_by_nobody_else(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))

    first, second = a_lane(shop), a_lane(shop)

    assert {first.number, second.number} == {1, 2}
    assert claimed(shop) is None


def test_two_claims_at_the_same_time_get_two_lanes_and_do_not_wait(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))

    with shop.begin() as one, shop.begin() as another, shop.begin() as third:
        first = outbox.claim(one, [SHOP], "one", CommitHorizon())
        second = outbox.claim(another, [SHOP], "another", CommitHorizon())
        nothing = outbox.claim(third, [SHOP], "third", CommitHorizon())

    assert first and second and nothing is None
    assert {first.number, second.number} == {1, 2}


def test_many_claims_at_the_same_time_never_lease_one_lane_twice(shop: Db) -> None:
    recorded_for(shop, *(an_aggregate(number) for number in range(LANES)))

    with ThreadPoolExecutor(16) as workers:
        claims = list(workers.map(lambda _: claimed(shop), range(2 * LANES)))

    leased = [lane.number for lane in claims if lane]
    assert sorted(leased) == list(range(LANES))


def test_only_the_destinations_that_are_named_are_claimed(shop: Db) -> None:
    recorded_for(shop, an_aggregate())

    assert claimed(shop, "events") is None
    assert claimed(shop, SHOP) is not None


def test_a_released_lane_is_free_at_once_and_is_claimed_last(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    first = a_lane(shop)

    released(shop, first)
    second, again = a_lane(shop), a_lane(shop)

    assert second.number != first.number
    assert (again.number, again.epoch) == (first.number, first.epoch + 1)


def test_a_lane_whose_lease_has_ended_can_be_claimed_and_gets_a_higher_epoch(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    old = a_lane(shop)

    time_passes(shop, LEASE)
    new = a_lane(shop)

    assert (new.number, new.epoch) == (old.number, old.epoch + 1)


def test_a_lane_can_not_be_claimed_before_its_lease_has_ended(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    a_lane(shop)

    time_passes(shop, LEASE - timedelta(seconds=2))

    assert claimed(shop) is None


def test_a_paused_destination_is_not_claimed(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    set_shop(shop, paused=True)

    assert claimed(shop) is None
    set_shop(shop, paused=False)
    assert claimed(shop) is not None


def test_a_destination_whose_breaker_is_open_is_not_claimed_until_its_probe_is_due(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    set_shop(shop, open_until=clock(shop) + timedelta(minutes=1), failures=1)

    assert claimed(shop) is None
    time_passes(shop, timedelta(minutes=1))
    assert a_lane(shop).probing


def test_a_destination_that_is_down_does_not_keep_the_others_from_being_claimed(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    set_shop(shop, open_until=clock(shop) + timedelta(minutes=1), failures=1)
    other = with_shop(shop, name="other")
    recorded_for(other, an_aggregate())

    with shop.begin() as session:
        lane = outbox.claim(session, [SHOP, "other"], "me", CommitHorizon())

    assert lane is not None and lane.destination == "other"


def test_a_claim_does_not_wait_for_a_lane_that_is_being_settled(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    lane = a_lane(shop)
    batch = fetched(shop, lane)

    with shop.begin() as settling:
        outbox.settle(settling, [lane], [(batch[0], Delivered())], retry_policy=a_retry_policy(), history=History())
        other = claimed(shop)

    assert other is not None and other.number != lane.number


def test_when_the_probe_is_due_one_worker_probes_and_no_other(shop: Db) -> None:
    recorded_for(shop, *(an_aggregate(number) for number in range(4)))
    set_shop(shop, failures=1, open_until=clock(shop))

    lane = a_lane(shop)

    assert lane.probing and lane.has_probe_lease
    assert claimed(shop) is None


def test_a_probe_comes_after_the_lanes_of_destinations_that_are_up(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    set_shop(shop, failures=1, open_until=clock(shop))
    recorded_for(with_shop(shop, name="other"), an_aggregate())
    just_now = clock(shop)
    with shop.begin() as session:
        # It has rested for a shorter time than the lane to be probed, which was never leased.
        session.execute(update(lanes).where(lanes.c.destination == "other").values(leased_until=just_now))

    def claim() -> tuple[str, bool] | None:
        with shop.begin() as session:
            lane = outbox.claim(session, [SHOP, "other"], "me", CommitHorizon())
        return (lane.destination, lane.probing) if lane else None

    assert [claim(), claim(), claim()] == [("other", False), (SHOP, True), None]


def test_of_two_claims_at_the_same_time_one_may_probe_and_the_other_finds_the_probe_taken(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    set_shop(shop, failures=1, open_until=clock(shop))

    with shop() as first, ThreadPoolExecutor(1) as elsewhere:
        lane = outbox.claim(first, [SHOP], "first", CommitHorizon())
        second = elsewhere.submit(claimed, shop)
        wait_until_blocked(shop)
        first.commit()

        with pytest.raises(ProbeTaken):
            second.result()

    assert lane is not None and lane.probing


def test_a_claim_whose_probe_is_taken_leaves_its_transaction_to_the_caller(shop: Db) -> None:
    """The claim neither commits nor rolls back: the caller's own changes are still there, and may be committed."""
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    set_shop(shop, failures=1, open_until=clock(shop))

    with shop() as first, shop() as second, ThreadPoolExecutor(1) as elsewhere:
        second.execute(text("UPDATE outbox_destinations SET paused = true WHERE name = 'events'"))
        outbox.claim(first, [SHOP], "first", CommitHorizon())
        claim = elsewhere.submit(outbox.claim, second, [SHOP], "second", CommitHorizon())
        wait_until_blocked(shop)
        first.commit()
        with pytest.raises(ProbeTaken):
            claim.result()

        assert second.in_transaction()
        assert not destination(shop, "events").paused, "the claim has committed the change of its caller"
        second.commit()

    assert destination(shop, "events").paused, "the claim has rolled the change of its caller back"


def test_a_claim_that_is_rolled_back_leases_nothing(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    set_shop(shop, failures=1, open_until=clock(shop))

    with shop() as session:
        lane = outbox.claim(session, [SHOP], "me", CommitHorizon())
        session.rollback()

    assert lane is not None
    assert stored_lane(shop, lane).holder is None
    assert a_lane(shop).probing, "the lease of the probe was rolled back as well"


@pytest.mark.parametrize("step", [timedelta(minutes=1), timedelta(days=3_650)])
def test_after_the_clock_has_stepped_back_every_lane_can_be_claimed(shop: Db, step: timedelta) -> None:
    """The leases and releases that were written before the step are later than any could be."""
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    frozen, idle = a_lane(shop), a_lane(shop)
    released(shop, idle)

    the_clock_steps_back(shop, step)

    assert {a_lane(shop).number, a_lane(shop).number} == {frozen.number, idle.number}
    assert claimed(shop) is None


def test_a_lane_that_was_released_before_a_small_step_is_free_at_once(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    released(shop, a_lane(shop))

    the_clock_steps_back(shop, timedelta(seconds=2))

    assert claimed(shop) is not None


def test_a_lane_from_before_a_step_does_not_wait_for_lanes_that_are_released_after_it(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1))
    released(shop, a_lane(shop))
    the_clock_steps_back(shop, timedelta(hours=1))
    recorded_for(shop, an_aggregate(2))
    with shop.begin() as session:
        session.execute(update(lanes).where(lanes.c.lane == 2).values(leased_until=clock(shop) - timedelta(hours=1)))

    assert a_lane(shop).number == 1


@pytest.mark.parametrize(
    ("open_for", "opened_ago"),
    [
        (LONGEST_RETRY_AFTER + timedelta(minutes=1), timedelta(hours=1)),
        (timedelta(minutes=10), -timedelta(minutes=9)),
    ],
    ids=["open for longer than any breaker", "opened in the future"],
)
def test_a_breaker_that_was_opened_before_a_step_of_the_clock_is_probed_by_one_worker(
    shop: Db, open_for: timedelta, opened_ago: timedelta
) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    now_ = clock(shop)
    set_shop(shop, failures=1, open_until=now_ + open_for, opened_at=now_ - opened_ago)

    assert a_lane(shop).probing

    assert claimed(shop) is None


def the_clock_steps_back(db: Db, by: timedelta) -> None:
    """Make the times of all lanes later, as they are after the clock was set back."""
    with db.begin() as session:
        session.execute(update(lanes).values(leased_until=lanes.c.leased_until + by))
