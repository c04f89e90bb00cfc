"""Lanes: one holder at a time, and nothing that is held for ever."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Row, select, update

from domain import outbox
from domain.outbox import Delivered, Failed, Lane, Rejected
from domain.outbox.delivery.lanes import LEASE
from domain.outbox.delivery.outcomes import Retries
from domain.outbox.table import LANES, destinations, lane_of, lanes, waiting
from domain.outbox.table import outbox as table
from domain.runtime.database import now
from tests.support.builders import Db
from tests.support.outbox import (
    SHOP,
    a_lane,
    an_aggregate,
    claimed,
    fetched,
    recorded_for,
    released,
    settled,
    states,
    time_passes,
    with_shop,
)


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def stored(db: Db, lane: Lane) -> Row[int, int, str | None, datetime | None]:
    with db.begin() as session:
        return session.execute(
            select(lanes.c.lane, lanes.c.epoch, lanes.c.holder, lanes.c.leased_until).where(
                lanes.c.destination == lane.destination, lanes.c.lane == lane.number
            )
        ).one()


def set_destination(db: Db, **values: object) -> None:
    with db.begin() as session:
        session.execute(update(destinations).where(destinations.c.name == SHOP).values(values))


def clock(db: Db) -> datetime:
    with db.begin() as session:
        return now(session)


def test_an_aggregate_always_goes_by_the_same_lane() -> None:
    for lane in range(LANES):
        assert lane_of(an_aggregate(lane)) == lane


def test_registering_twice_leaves_what_is_known_as_it_is(shop: Db) -> None:
    recorded_for(shop, an_aggregate(3))
    lane = a_lane(shop)
    set_destination(shop, paused=True)

    with shop.begin() as session:
        outbox.register(session, [SHOP])

    assert stored(shop, lane).holder == lane.holder
    assert claimed(shop) is None


def test_only_a_lane_with_due_rows_is_claimed(shop: Db) -> None:
    assert claimed(shop) is None
    recorded_for(shop, an_aggregate(5))

    lane = a_lane(shop)

    assert (lane.destination, lane.number, lane.epoch, lane.probing, lane.rows_to_wake) == (SHOP, 5, 1, False, False)


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


def test_a_row_whose_time_has_come_makes_its_lane_due(shop: Db) -> None:
    recorded_for(shop, an_aggregate(5))
    lane = a_lane(shop)
    settled(shop, lane, [(fetched(shop, lane)[0], Failed("later"))])
    released(shop, lane)

    time_passes(shop)

    assert a_lane(shop).rows_to_wake


def test_a_lane_is_leased_by_the_clock_of_the_database(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    with shop.begin() as session:
        now(session)
        before = clock(shop)  # later than the `now()` of the transaction that claims
        lane = outbox.claim(session, [SHOP], "me")
    after = clock(shop)

    assert lane is not None
    leased_until = stored(shop, lane).leased_until
    assert leased_until is not None
    assert before + LEASE <= leased_until <= after + LEASE


def test_a_lane_that_is_held_is_claimed_by_nobody_else(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))

    first, second = a_lane(shop), a_lane(shop)

    assert {first.number, second.number} == {1, 2}
    assert claimed(shop) is None


def test_two_claims_in_flight_at_once_get_two_lanes_and_do_not_wait(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))

    with shop.begin() as one, shop.begin() as another, shop.begin() as third:
        first = outbox.claim(one, [SHOP], "one")
        second = outbox.claim(another, [SHOP], "another")
        nothing = outbox.claim(third, [SHOP], "third")

    assert first and second and nothing is None
    assert {first.number, second.number} == {1, 2}


def test_of_many_claimers_at_once_no_two_hold_one_lane(shop: Db) -> None:
    recorded_for(shop, *(an_aggregate(number) for number in range(LANES)))

    with ThreadPoolExecutor(16) as claimers:
        claims = list(claimers.map(lambda _: claimed(shop), range(2 * LANES)))

    held = [lane.number for lane in claims if lane]
    assert sorted(held) == list(range(LANES))


def test_only_the_destinations_that_are_named_are_claimed(shop: Db) -> None:
    recorded_for(shop, an_aggregate())

    assert claimed(shop, "events") is None
    assert claimed(shop, SHOP) is not None


def test_a_released_lane_is_free_at_once_and_comes_last(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    first = a_lane(shop)

    released(shop, first)
    second, again = a_lane(shop), a_lane(shop)

    assert second.number != first.number
    assert (again.number, again.epoch) == (first.number, first.epoch + 1)


def test_a_lease_that_ran_out_can_be_claimed_and_has_a_higher_epoch(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    old = a_lane(shop)

    time_passes(shop, LEASE)
    new = a_lane(shop)

    assert (new.number, new.epoch) == (old.number, old.epoch + 1)


def test_a_lease_runs_out_after_a_lease_and_not_before(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    a_lane(shop)

    time_passes(shop, LEASE - timedelta(seconds=2))

    assert claimed(shop) is None


def test_a_paused_destination_is_left_alone(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    set_destination(shop, paused=True)

    assert claimed(shop) is None
    set_destination(shop, paused=False)
    assert claimed(shop) is not None


def test_a_destination_whose_breaker_is_open_is_left_alone_until_its_time(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    set_destination(shop, open_until=clock(shop) + timedelta(minutes=1), failures=1)

    assert claimed(shop) is None
    time_passes(shop, timedelta(minutes=1))
    assert a_lane(shop).probing


def test_a_destination_that_is_down_does_not_keep_the_others_from_being_served(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    set_destination(shop, open_until=clock(shop) + timedelta(minutes=1), failures=1)
    other = with_shop(shop, name="other")
    recorded_for(other, an_aggregate())

    with shop.begin() as session:
        lane = outbox.claim(session, [SHOP, "other"], "me")

    assert lane is not None and lane.destination == "other"


def test_a_claim_waits_for_nobody_who_settles(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    lane = a_lane(shop)
    batch = fetched(shop, lane)

    with shop.begin() as settling:
        outbox.settle(settling, lane, [(batch[0], Delivered())], retries=Retries(max_attempts=1))
        other = claimed(shop)

    assert other is not None and other.number != lane.number
