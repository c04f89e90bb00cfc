"""Appending to the feed: each event once, in the order of the commits, whatever happens at the same time."""

import json
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import text, update

from domain import feed, outbox
from domain.feed.table import feed_events
from domain.outbox.table import outbox as table
from tests.support.builders import Db, an_event, recorded, routes_of
from tests.support.feed import a_page, appended, feed_rows, positions, recorded_for_feed, with_feed
from tests.support.outbox import an_aggregate, row, rows
from tests.support.waiting import wait_until_blocked


def test_events_are_appended_in_order_of_id_with_all_that_they_had_when_they_were_recorded(db: Db) -> None:
    aggregate = an_aggregate()
    ids = recorded_for_feed(db, aggregate, aggregate, an_aggregate())

    with db.begin() as session:
        assert feed.append(session, list(reversed(ids))) == 3

    found = [(one.position, one.event_id, one.type, one.aggregate_id, one.payload) for one in feed_rows(db)]
    assert found == [
        (position, one.event_id, one.type, one.aggregate_id, one.payload) for position, one in enumerate(rows(db), 1)
    ]
    assert [one.created_at for one in feed_rows(db)] == [one.created_at for one in rows(db)]


def test_an_event_that_is_in_the_feed_is_not_appended_again_and_leaves_no_gap(db: Db) -> None:
    first, second, third = recorded_for_feed(db, an_aggregate(), an_aggregate(), an_aggregate())

    for ids in ([second], [first, second], [first, second, third]):
        with db.begin() as session:
            feed.append(session, ids)

    found = [(one.position, one.event_id) for one in feed_rows(db)]
    assert found == [(1, row(db, second).event_id), (2, row(db, first).event_id), (3, row(db, third).event_id)]


def test_a_transaction_that_is_rolled_back_leaves_no_gap(db: Db) -> None:
    first, second = recorded_for_feed(db, an_aggregate(), an_aggregate())
    with db() as session:
        feed.append(session, [first])

    with db.begin() as session:
        feed.append(session, [second])

    assert positions(db) == [1]


def test_no_event_becomes_visible_before_an_event_with_a_lower_position(db: Db) -> None:
    """The classic gap: position 2 commits, a reader passes it, and position 1, which commits late, is never read."""
    late, quick = recorded_for_feed(db, an_aggregate(), an_aggregate())
    with ThreadPoolExecutor(1) as elsewhere:
        with db() as session:
            feed.append(session, [late])
            other = elsewhere.submit(_append, db, quick)
            try:
                wait_until_blocked(db)
            finally:
                before = a_page(db)
                session.commit()
        other.result()

    after = a_page(db, after=before.read_up_to)
    seen = [one.event_id for one in (*before.events, *after.events)]
    assert seen == [row(db, late).event_id, row(db, quick).event_id]


def _append(db: Db, *ids: int) -> None:
    with db.begin() as session:
        feed.append(session, ids)


def test_an_event_whose_reservation_committed_late_comes_after_those_that_were_read_before(db: Db) -> None:
    sessions = with_feed(db)
    with sessions() as late:
        outbox.record(late, [an_event()], routes_of(sessions))
        (quick,) = recorded_for_feed(db, an_aggregate())
        _append(db, quick)
        before = a_page(db)
        late.commit()
    (missing,) = {one.id for one in rows(db)} - {quick}
    assert missing < quick

    _append(db, missing)

    after = a_page(db, after=before.read_up_to)
    assert [one.event_id for one in before.events] == [row(db, quick).event_id]
    assert [one.event_id for one in after.events] == [row(db, missing).event_id]


@pytest.mark.parametrize("readers", [3])
def test_readers_beside_many_writers_see_each_event_once_and_in_order(db: Db, readers: int) -> None:
    aggregates = [an_aggregate(number) for number in range(20)]
    ids = recorded_for_feed(db, *(aggregates * 50))
    batches = [ids[start : start + 7] for start in range(0, len(ids), 7)]

    with ThreadPoolExecutor(8 + readers) as threads:
        seen = [threads.submit(_read_all, db, len(ids)) for _ in range(readers)]
        list(threads.map(lambda batch: _append(db, *batch), batches))

    by_event = {one.event_id: one.id for one in rows(db)}
    for events in (one.result() for one in seen):
        assert sorted(by_event[event] for event, _ in events) == sorted(ids)


def _read_all(db: Db, count: int) -> list[tuple[UUID, UUID]]:
    seen: list[tuple[UUID, UUID]] = []
    position = 0
    while len(seen) < count:
        page = a_page(db, after=position, limit=13)
        seen += [(one.event_id, one.aggregate_id) for one in page.events]
        position = page.read_up_to
    return seen


def test_the_time_of_appending_does_not_go_back_when_the_clock_does(db: Db) -> None:
    appended(db)
    with db.begin() as session:
        ahead = feed_events.c.appended_at + text("interval '1 hour'")
        session.execute(update(feed_events).values(appended_at=ahead))

    appended(db, 2)

    (moment,) = {one.appended_at for one in feed_rows(db)}
    assert moment > rows(db)[-1].created_at


def test_a_row_that_is_not_there_any_more_is_left_out(db: Db) -> None:
    first, second = recorded_for_feed(db, an_aggregate(), an_aggregate())
    with db.begin() as session:
        session.execute(table.delete().where(table.c.id == first))

    _append(db, first, second)

    assert [one.event_id for one in feed_rows(db)] == [row(db, second).event_id]


def test_a_payload_with_line_breaks_is_one_line_of_json(db: Db) -> None:
    sku = 'new\nline\r "quoted" \\ é \u2028'
    sessions = with_feed(db)
    recorded(sessions, an_event(sku=sku))

    _append(db, rows(db)[0].id)

    (event,) = a_page(db).events
    assert json.loads(event.payload)["sku"] == sku
    assert not {"\n", "\r"} & set(event.payload)
