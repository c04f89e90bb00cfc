"""Fetching: the rows of a lane are read in order, without those that wait, and none that commits late is skipped."""

import json
from datetime import timedelta

from sqlalchemy import text, update

from domain import outbox
from domain.outbox import Delivered, Failed, LeasedLane, NotSent, Rejected
from domain.outbox.delivery.fetch import DUE_ROWS_LIMIT
from domain.outbox.table import outbox as table
from domain.runtime.database import now
from tests.domain.outbox.conftest import clock
from tests.support.builders import Db, an_event, recorded, routes_of
from tests.support.outbox import (
    NOT_NOW,
    a_lane,
    an_aggregate,
    fetched,
    recorded_for,
    released,
    row,
    settled,
    states,
    time_passes,
)


def made_ready(db: Db, lane: LeasedLane) -> int:
    with db.begin() as session:
        return outbox.make_due_rows_ready(session, lane)


def ids(db: Db, lane: LeasedLane, *, after: int = 0, limit: int = 100) -> list[int]:
    return [one.id for one in fetched(db, lane, after=after, limit=limit)]


def head_fails(db: Db) -> LeasedLane:
    """Claim a lane, have its first row fail so that it waits, and release the lane."""
    lane = a_lane(db)
    settled(db, lane, [(fetched(db, lane)[0], Failed("not now"))])
    released(db, lane)
    return lane


def test_a_lane_is_read_in_order_of_id_up_to_the_limit(shop: Db) -> None:
    recorded_ids = recorded_for(shop, *(an_aggregate(4) for _ in range(5)))
    recorded_for(shop, an_aggregate(5))
    lane = a_lane(shop)
    while lane.number != 4:
        lane = a_lane(shop)

    assert ids(shop, lane, limit=3) == recorded_ids[:3]
    assert ids(shop, lane, after=recorded_ids[2]) == recorded_ids[3:]


def test_each_destination_has_rows_of_its_own(db: Db) -> None:
    aggregate = an_aggregate(4)
    recorded(db, an_event(aggregate), an_event(aggregate, "reservation_confirm"))

    fetched_ids = ids(db, a_lane(db, "events")) + ids(db, a_lane(db, "confirmation"))

    assert fetched_ids == [1, 2]


def test_a_row_has_everything_that_was_recorded(shop: Db) -> None:
    aggregate = an_aggregate()
    event = an_event(aggregate, "booking.created", guest_id="Zoë\u2028")
    recorded(shop, event)

    (one,) = fetched(shop, a_lane(shop))

    assert (one.aggregate_id, one.type, json.loads(one.payload)) == (aggregate, "booking.created", event.payload)
    assert (one.headers, one.attempts, one.unreachable_at, one.waits_until) == ("{}", 0, None, None)
    assert one.event_id.version == 7


def test_a_row_that_waits_is_not_fetched_and_the_others_are(shop: Db) -> None:
    first, second = recorded_for(shop, an_aggregate(), an_aggregate())

    lane = head_fails(shop)

    assert ids(shop, lane) == [second]
    assert states(shop, first) == ["waiting"]


def test_a_later_row_of_an_aggregate_that_waits_comes_with_the_time_of_the_first_one(shop: Db) -> None:
    one, other = an_aggregate(), an_aggregate()
    recorded_for(shop, one)
    head_fails(shop)
    later, free = recorded_for(shop, one, other)

    blocked, ready = fetched(shop, a_lane(shop))

    assert (blocked.id, blocked.waits_until) == (later, row(shop, 1).available_at)
    assert (ready.id, ready.waits_until) == (free, None)


def test_a_row_behind_a_waiting_one_waits_with_it_and_both_become_ready_together(shop: Db) -> None:
    aggregate = an_aggregate()
    recorded_for(shop, aggregate)
    head_fails(shop)
    recorded_for(shop, aggregate)
    lane = a_lane(shop)

    settled(shop, lane, [(fetched(shop, lane)[0], NotSent())])

    assert states(shop) == ["waiting", "waiting"]
    assert row(shop, 2).available_at == row(shop, 1).available_at
    assert ids(shop, lane) == []
    time_passes(shop)
    assert made_ready(shop, lane) == 2
    assert ids(shop, lane) == [1, 2]


def test_a_row_does_not_wait_for_a_later_one(shop: Db) -> None:
    """A backlog becomes ready in steps, so some rows of an aggregate may be ready before the later ones."""
    aggregate = an_aggregate()
    first, _ = recorded_for(shop, aggregate, aggregate)
    lane = a_lane(shop)
    settled(shop, lane, [(one, NOT_NOW if one.id == first else NotSent()) for one in fetched(shop, lane)])
    with shop.begin() as session:
        session.execute(update(table).where(table.c.id == first).values(available_at=None))

    (first_ready,) = fetched(shop, lane)

    assert states(shop) == ["ready", "waiting"]
    assert (first_ready.id, first_ready.waits_until) == (first, None)


def test_only_rows_that_are_due_become_ready(shop: Db) -> None:
    recorded_for(shop, an_aggregate(), an_aggregate())
    lane = a_lane(shop)
    settled(shop, lane, [(one, Failed("not now")) for one in fetched(shop, lane)])
    with shop.begin() as session:
        later = update(table).where(table.c.id == 2).values(available_at=now(session) + timedelta(hours=1))
        session.execute(later)
        session.execute(update(table).where(table.c.id == 1).values(available_at=now(session)))

    assert made_ready(shop, lane) == 1

    assert states(shop) == ["ready", "waiting"]


def test_the_rows_of_another_lane_do_not_become_ready(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    lanes = [head_fails(shop), head_fails(shop)]
    time_passes(shop)

    made_ready(shop, lanes[0])

    assert sorted(states(shop)) == ["ready", "waiting"]


def test_a_large_backlog_becomes_ready_in_limited_steps_the_earliest_rows_first(shop: Db) -> None:
    recorded_for(shop, an_aggregate(7))
    lane = a_lane(shop)
    due = """
        INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, available_at)
        SELECT gen_random_uuid(), 'shop', 7, gen_random_uuid(), 'booking.created', '{}', now() - n * interval '1 s'
        FROM generate_series(1, :rows) AS n
    """
    with shop.begin() as session:
        session.execute(text(due), {"rows": DUE_ROWS_LIMIT + 2})

    assert made_ready(shop, lane) == DUE_ROWS_LIMIT

    assert states(shop) == ["ready", "waiting", "waiting"] + ["ready"] * DUE_ROWS_LIMIT
    assert made_ready(shop, lane) == 2


def test_rows_behind_a_dead_one_do_not_wait(shop: Db) -> None:
    aggregate = an_aggregate()
    recorded_for(shop, aggregate, aggregate)
    lane = a_lane(shop)
    head, _ = fetched(shop, lane)

    settled(shop, lane, [(head, Rejected("never"))])

    (next_one,) = fetched(shop, lane)
    assert (next_one.id, next_one.waits_until) == (2, None)


def test_a_row_that_commits_late_with_a_lower_id_is_not_skipped(shop: Db) -> None:
    late_aggregate, aggregate = an_aggregate(), an_aggregate()
    with shop() as late:
        outbox.record(late, [an_event(late_aggregate)], routes_of(shop))
        recorded_for(shop, aggregate)
        lane = a_lane(shop)
        early = fetched(shop, lane)
        late.commit()

    assert [one.aggregate_id for one in early] == [aggregate]
    settled(shop, lane, [(early[0], Delivered())])
    assert ids(shop, lane, after=early[0].id) == [], "this run over the lane has read beyond it"
    released(shop, lane)
    again = fetched(shop, a_lane(shop))
    assert [one.aggregate_id for one in again] == [late_aggregate]
    assert again[0].id < early[0].id


def test_a_row_that_is_not_committed_is_not_fetched(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)
    with shop() as uncommitted:
        outbox.record(uncommitted, [an_event(an_aggregate())], routes_of(shop))

        assert ids(shop, lane) == [1]
        uncommitted.rollback()


def test_rows_that_wait_for_longer_than_any_row_can_become_due(shop: Db) -> None:
    """The clock was ahead by years when their waits were written, and has been set right since."""
    recorded_ids = recorded_for(shop, *(an_aggregate(lane) for lane in (1, 1, 2, 3)))
    lane = a_lane(shop)
    settled(shop, lane, [(row, NOT_NOW) for row in fetched(shop, lane)])
    released(shop, lane)
    with shop.begin() as session:
        later = now(session) + timedelta(days=3_650)
        session.execute(update(table).where(table.c.id.in_(recorded_ids[::2][:2])).values(available_at=later))

    with shop.begin() as session:
        assert outbox.make_impossible_waits_due(session) == 2
    with shop.begin() as session:
        assert outbox.make_impossible_waits_due(session) == 0

    assert {claim.number for claim in (a_lane(shop), a_lane(shop), a_lane(shop))} == {1, 2, 3}
    assert [row(shop, row_id).available_at <= clock(shop) for row_id in recorded_ids[:3]] == [True, False, True]
