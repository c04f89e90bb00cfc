"""The circuit breaker: an outage costs a probe now and then, and its end is noticed soon."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.outbox import (
    Cause,
    Declined,
    Delivered,
    Failed,
    History,
    LeasedLane,
    NotSent,
    Outcome,
    Rejected,
    Settlement,
    Unreachable,
)
from domain.outbox.delivery import breaker
from domain.outbox.delivery.breaker import FIRST_OPEN, LONGEST_OPEN
from domain.outbox.delivery.lanes import LEASE, PROBE_LEASE
from domain.outbox.delivery.outcomes import LONGEST_RETRY_AFTER
from tests.domain.outbox.conftest import clock, set_shop
from tests.support.builders import Db
from tests.support.outbox import (
    SHOP,
    a_lane,
    an_aggregate,
    claimed,
    destination,
    fetched,
    recorded_for,
    released,
    row,
    rows,
    settled,
    states,
    time_passes,
)

DOWN = Unreachable("503 Service Unavailable")

BEFORE = datetime(2000, 1, 1, tzinfo=UTC)

#: The clock advances between two statements, by less than this.
SLACK = timedelta(seconds=2)


def answered(db: Db, lane: LeasedLane, outcome: Outcome) -> Settlement:
    """Settle the first row of a leased lane."""
    settlement = settled(db, lane, [(fetched(db, lane, limit=1)[0], outcome)])
    assert settlement is not None
    return settlement


def an_outage(db: Db, failures: int = 1) -> None:
    """The shop was found down that many times in a row, and the next probe is due."""
    set_shop(db, failures=failures, open_until=clock(db), reason="503")


def opened_by(db: Db, outcome: Outcome) -> tuple[timedelta, timedelta]:
    """Settle the first row with this outcome. Return the bounds of the time for which the breaker stays open."""
    before = clock(db)
    answered(db, a_lane(db), outcome)
    after = clock(db)
    open_until = destination(db).open_until
    return open_until - after, open_until - before


def test_an_outage_opens_the_breaker_and_its_error_is_the_reason(shop: Db) -> None:
    recorded_for(shop, an_aggregate())

    low, high = opened_by(shop, DOWN)

    assert (destination(shop).failures, destination(shop).reason) == (1, "503 Service Unavailable")
    assert low <= FIRST_OPEN and high >= FIRST_OPEN / 2


def test_rows_wait_for_as_long_as_the_breaker_is_open_and_spend_no_attempt(shop: Db) -> None:
    recorded_for(shop, an_aggregate())

    answered(shop, a_lane(shop), DOWN)

    assert row(shop, 1).available_at == destination(shop).open_until
    assert (row(shop, 1).attempts, row(shop, 1).last_error) == (0, "503 Service Unavailable")
    assert row(shop, 1).unreachable_at is not None


@pytest.mark.parametrize("failures", range(8))
def test_each_failure_in_a_row_opens_the_breaker_for_longer_up_to_a_limit(shop: Db, failures: int) -> None:
    recorded_for(shop, an_aggregate())
    an_outage(shop, failures)

    low, high = opened_by(shop, DOWN)

    bound = min(FIRST_OPEN * 2**failures, LONGEST_OPEN)
    assert low <= bound and high >= bound / 2
    assert destination(shop).failures == failures + 1


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (timedelta(milliseconds=1), FIRST_OPEN / 2),
        (timedelta(minutes=5), timedelta(minutes=5)),
        (timedelta(days=3), LONGEST_RETRY_AFTER),
    ],
)
def test_a_destination_gets_the_time_that_it_asks_for_within_reason(
    shop: Db, asked: timedelta, granted: timedelta
) -> None:
    recorded_for(shop, an_aggregate())

    low, high = opened_by(shop, Unreachable("429", retry_after=asked))

    assert low <= max(granted, FIRST_OPEN) and high >= granted


def test_of_several_times_that_a_destination_asks_for_it_gets_the_longest(shop: Db) -> None:
    recorded_for(shop, an_aggregate(), an_aggregate(), an_aggregate())
    lane = a_lane(shop)
    asked = [timedelta(minutes=1), timedelta(minutes=9), None]

    before = clock(shop)
    settled(shop, lane, [(one, Unreachable("429", ask)) for one, ask in zip(fetched(shop, lane), asked, strict=True)])

    assert before + timedelta(minutes=9) <= destination(shop).open_until <= clock(shop) + timedelta(minutes=9)
    assert destination(shop).failures == 1


def test_lanes_that_meet_the_same_outage_at_the_same_time_count_as_one_failure(shop: Db) -> None:
    recorded_for(shop, *(an_aggregate(number) for number in range(8)))
    leased = [a_lane(shop) for _ in range(8)]

    for lane in leased:
        answered(shop, lane, DOWN)

    assert destination(shop).failures == 1
    assert destination(shop).open_until <= clock(shop) + FIRST_OPEN
    assert states(shop) == ["waiting"] * 8


def test_when_a_worker_dies_while_it_probes_another_one_probes(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    an_outage(shop)
    a_lane(shop)

    time_passes(shop, max(LEASE, PROBE_LEASE) + SLACK)

    assert a_lane(shop).probing


def test_a_probe_that_succeeds_closes_the_breaker_for_everyone(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    an_outage(shop, failures=5)

    settlement = answered(shop, a_lane(shop), Delivered())

    state = destination(shop)
    assert (settlement.is_up, settlement.down) == (True, None)
    assert (state.failures, state.open_until, state.reason) == (0, None, None)
    assert state.recovered_at is not None
    assert not a_lane(shop).probing


@pytest.mark.parametrize("outcome", [Declined("no"), Rejected("never")])
def test_any_clear_answer_shows_that_a_destination_is_up(shop: Db, outcome: Outcome) -> None:
    recorded_for(shop, an_aggregate())
    an_outage(shop)

    answered(shop, a_lane(shop), outcome)

    assert destination(shop).failures == 0


@pytest.mark.parametrize("outcome", [Failed("oops"), NotSent()])
def test_after_a_probe_that_shows_nothing_another_worker_may_probe_when_the_lane_is_released(
    shop: Db, outcome: Outcome
) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    an_outage(shop, failures=3)
    lane = a_lane(shop)

    settlement = answered(shop, lane, outcome)
    assert (settlement.is_up, settlement.down) == (False, None)
    assert claimed(shop) is None, "the first worker has still leased the probe"
    released(shop, lane)

    assert destination(shop).failures == 3
    assert a_lane(shop).probing


def test_a_probe_that_fails_opens_the_breaker_again(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    an_outage(shop, failures=2)

    answered(shop, a_lane(shop), DOWN)

    assert destination(shop).failures == 3
    assert claimed(shop) is None


def test_a_worker_that_lost_its_lane_does_not_end_the_probe_of_another_worker(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1))
    an_outage(shop)
    lost = a_lane(shop)
    time_passes(shop, max(LEASE, PROBE_LEASE) + SLACK)
    a_lane(shop)
    recorded_for(shop, an_aggregate(2))

    released(shop, lost)

    assert claimed(shop) is None


def test_one_event_that_is_answered_500_among_others_does_not_open_the_breaker(shop: Db) -> None:
    recorded_for(shop, *(an_aggregate(1) for _ in range(3)))
    lane, history = a_lane(shop), History()
    outcomes = Delivered(), Unreachable("500", cause=Cause.ERROR), Delivered()

    settlement = settled(shop, lane, list(zip(fetched(shop, lane), outcomes, strict=True)), history=history)

    assert settlement and settlement.down is None
    assert (destination(shop).failures, row(shop, 2).attempts, states(shop, 2)) == (0, 0, ["waiting"])


def test_while_the_breaker_is_open_nobody_is_at_fault_whatever_this_process_has_seen(shop: Db) -> None:
    """Another process has found the destination down, and has not closed the breaker yet."""
    recorded_for(shop, an_aggregate(1), an_aggregate(1), an_aggregate(2))
    one, other, history = a_lane(shop), a_lane(shop), History()
    (bad,) = fetched(shop, other)
    settled(shop, one, [(row, Delivered()) for row in fetched(shop, one)], history=history)
    an_outage(shop)

    settlement = settled(shop, other, [(bad._replace(unreachable_at=BEFORE), DOWN)], history=history)

    assert settlement and settlement.down
    assert row(shop, bad.id).attempts == 0


def test_a_destination_that_tells_several_events_that_it_is_gone_is_paused(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(1), an_aggregate(1))
    lane, history, gone = a_lane(shop), History(), Unreachable("410 Gone", cause=Cause.GONE)
    first, *others = fetched(shop, lane)

    settled(shop, lane, [(first, gone)], history=history)
    assert not destination(shop).paused
    settled(shop, lane, [(one, gone) for one in others], history=history)

    assert (destination(shop).paused, destination(shop).reason) == (True, "410 Gone")


def test_a_reason_is_stored_without_nul_and_up_to_a_limit(shop: Db) -> None:
    recorded_for(shop, an_aggregate())

    answered(shop, a_lane(shop), Unreachable("500 \0" + "x" * 100_000))

    assert destination(shop).reason.startswith("500 xxx")
    assert len(destination(shop).reason) == len(rows(shop)[0].last_error) == 1_000


def test_a_breaker_that_is_half_open_lets_the_next_probe_begin_at_once(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    an_outage(shop)
    set_shop(shop, open_until=clock(shop) + PROBE_LEASE)

    with shop.begin() as session:
        breaker.leave_half_open(session, SHOP)

    assert a_lane(shop).probing
