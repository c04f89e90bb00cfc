"""Calls that outlast their batch: their rows wait for them, their lanes do not."""

from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta

from domain import outbox
from domain.outbox import (
    Call,
    Delivered,
    Failed,
    History,
    InFlight,
    LeasedLane,
    NotSent,
    Outcome,
    Row,
    Settlement,
    Unreachable,
)
from domain.outbox.operations import burial
from domain.outbox.operations.selection import Among, Selection
from tests.domain.outbox.conftest import clock, set_shop
from tests.support.builders import Db
from tests.support.operations import ENTRY
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
    row,
    settled,
    states,
    time_passes,
)

WITHIN = timedelta(seconds=14)


def in_flight() -> InFlight:
    return InFlight(WITHIN, Future())


def late(db: Db, lane: LeasedLane, head: Row, *behind: Row) -> Call:
    """Settle a batch whose first row is in flight, with the rows that were not sent behind it."""
    settlement = settled(db, lane, [(head, in_flight()), *((one, NotSent()) for one in behind)])
    assert settlement
    return Call(destination=SHOP, row=head, since=settlement.at, until=settlement.at + WITHIN)


def a_call_with_a_row_behind(db: Db) -> tuple[LeasedLane, Call, Row]:
    """A lane that is leased to us, a late call for its first row, and the next row of the same aggregate."""
    aggregate = an_aggregate()
    recorded_for(db, aggregate, aggregate)
    lane = a_lane(db)
    head, behind = fetched(db, lane)
    return lane, late(db, lane, head, behind), behind


def ended(db: Db, call: Call, outcome: Outcome, max_attempts: int = 12) -> Settlement | None:
    policy = a_retry_policy(max_attempts)
    with db.begin() as session:
        return outbox.settle_late(session, call, outcome, retry_policy=policy, history=History())


def test_the_row_of_a_call_in_flight_waits_and_other_rows_of_the_lane_are_delivered(shop: Db) -> None:
    recorded_for(shop, an_aggregate(), an_aggregate())
    lane = a_lane(shop)
    head, other = fetched(shop, lane)

    call = late(shop, lane, head)
    settled(shop, lane, [(other, Delivered())])
    released(shop, lane)

    assert states(shop) == ["waiting", "processed"]
    assert (row(shop, 1).attempts, row(shop, 1).available_at) == (0, call.until)
    assert claimed(shop) is None, "Nothing is left to do before the call ends."


def test_when_the_call_ends_the_later_rows_of_its_aggregate_are_due_at_once(shop: Db) -> None:
    lane, call, behind = a_call_with_a_row_behind(shop)
    released(shop, lane)

    settlement = ended(shop, call, Delivered())

    assert settlement and [one.id for one, _ in settlement.processed] == [call.row.id]
    assert states(shop) == ["processed", "waiting"]
    assert row(shop, behind.id).available_at <= clock(shop)
    assert a_lane(shop).has_due_rows


def test_a_row_that_was_seen_behind_the_call_before_it_ended_does_not_wait_for_it_afterwards(shop: Db) -> None:
    aggregate = an_aggregate()
    recorded_for(shop, aggregate)
    lane = a_lane(shop)
    call = late(shop, lane, *fetched(shop, lane))
    released(shop, lane)
    recorded_for(shop, aggregate)
    lane = a_lane(shop)
    (behind,) = fetched(shop, lane)
    assert behind.waits_until == call.until

    ended(shop, call, Delivered())
    settled(shop, lane, [(behind, NotSent())])

    assert row(shop, behind.id).available_at <= clock(shop)


def test_a_call_that_failed_late_spends_an_attempt_and_the_later_rows_wait_for_its_retry(shop: Db) -> None:
    _, call, behind = a_call_with_a_row_behind(shop)

    ended(shop, call, Failed("oops", retry_after=timedelta(minutes=5)))

    first, second = row(shop, call.row.id), row(shop, behind.id)
    assert (first.attempts, first.last_error, second.attempts) == (1, "oops", 0)
    assert second.available_at == first.available_at > call.until


def test_after_the_last_attempt_the_later_rows_go_on_without_it(shop: Db) -> None:
    _, call, behind = a_call_with_a_row_behind(shop)

    ended(shop, call, Failed("oops"), max_attempts=1)

    assert states(shop) == ["dead", "waiting"]
    assert row(shop, behind.id).available_at <= clock(shop)


def test_an_answer_that_comes_after_the_row_was_sent_again_writes_nothing(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)
    call = late(shop, lane, *fetched(shop, lane))
    released(shop, lane)
    time_passes(shop)
    again = a_lane(shop)
    with shop.begin() as session:
        outbox.make_due_rows_ready(session, again)
    before = row(shop, 1)

    assert ended(shop, call, Failed("too late")) is None

    assert row(shop, 1) == before
    settled(shop, again, [(fetched(shop, again)[0], Failed("oops"))])
    assert ended(shop, call, Delivered()) is None
    assert states(shop) == ["waiting"]


def test_an_event_that_was_buried_meanwhile_stays_buried(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)
    call = late(shop, lane, *fetched(shop, lane))
    released(shop, lane)
    with shop.begin() as session:
        burial.bury(session, Selection(among=Among.PENDING, event_id=call.row.event_id), ENTRY)

    assert ended(shop, call, Delivered()) is None

    assert states(shop) == ["dead"]


def test_a_call_that_is_given_up_has_its_rows_sent_again_at_once(shop: Db) -> None:
    lane, call, behind = a_call_with_a_row_behind(shop)
    released(shop, lane)

    with shop.begin() as session:
        outbox.give_up(session, call)

    again = a_lane(shop)
    with shop.begin() as session:
        assert outbox.make_due_rows_ready(session, again) == 2
    assert [one.id for one in fetched(shop, again)] == [call.row.id, behind.id]


def a_probe_in_flight(db: Db) -> Call:
    """The call of a probe that has not ended when its batch is settled."""
    recorded_for(db, an_aggregate())
    set_shop(db, failures=1, open_until=clock(db), opened_at=clock(db))
    lane = a_lane(db)
    assert lane.probing
    call = late(db, lane, *fetched(db, lane))
    released(db, replace(lane, probing=False))
    return call


def test_a_probe_that_is_not_answered_is_not_waited_for_and_the_next_one_is_due_later(shop: Db) -> None:
    a_probe_in_flight(shop)

    assert destination(shop).failures == 2
    assert destination(shop).open_until > clock(shop)


def test_a_probe_that_is_answered_late_closes_the_breaker(shop: Db) -> None:
    call = a_probe_in_flight(shop)

    ended(shop, call, Delivered())

    assert (destination(shop).failures, destination(shop).open_until) == (0, None)


def test_a_call_from_before_the_outage_that_is_answered_late_does_not_close_the_breaker(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)
    call = late(shop, lane, *fetched(shop, lane))
    set_shop(shop, failures=1, open_until=clock(shop), opened_at=clock(shop))

    ended(shop, call, Delivered())

    assert destination(shop).failures == 1


def test_a_call_that_hung_leaves_an_open_breaker_as_it_is_and_its_row_in_doubt(shop: Db) -> None:
    call = a_probe_in_flight(shop)
    before = destination(shop)

    settlement = ended(shop, call, Unreachable("timed out"))

    after = destination(shop)
    assert settlement and settlement.down is None
    assert (after.failures, after.open_until) == (before.failures, before.open_until)
    assert states(shop) == ["waiting"] and row(shop, call.row.id).attempts == 0
