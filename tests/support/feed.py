"""The feed in tests: what it contains, and events that are appended without a worker."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row as Record
from sqlalchemy import select, text, update

from domain import feed
from domain.feed import FEED, Filter, Page
from domain.feed.table import feed_events
from domain.fulfilment import STEP_TYPES
from domain.outbox import Routes
from tests.support.builders import Db, an_event, recorded, with_routes
from tests.support.outbox import an_aggregate, rows

#: Everything there is.
EVERYTHING = Filter()


def with_feed(db: Db) -> Db:
    """The same database, where every event goes to the feed and nowhere else."""
    return with_routes(db, Routes([FEED], step_types=STEP_TYPES))


def recorded_for_feed(db: Db, *aggregates: UUID, event_type: str = "booking.created") -> Sequence[int]:
    """Record an event for each aggregate, in this order. Return the ids of the rows."""
    recorded(with_feed(db), *(an_event(aggregate, event_type) for aggregate in aggregates))
    return [row.id for row in rows(db)][-len(aggregates) :]


def appended(db: Db, count: int = 1, *, aggregate: UUID | None = None, event_type: str = "booking.created") -> None:
    """Append so many events, each of another aggregate or all of this one."""
    aggregates = [aggregate or an_aggregate(number % 32) for number in range(count)]
    ids = recorded_for_feed(db, *aggregates, event_type=event_type)
    with db.begin() as session:
        feed.append(session, ids)


def feed_rows(db: Db) -> Sequence[Record[Any]]:
    with db.begin() as session:
        return session.execute(select(feed_events).order_by(feed_events.c.position)).all()


def positions(db: Db) -> list[int]:
    return [row.position for row in feed_rows(db)]


def a_page(db: Db, wanted: Filter = EVERYTHING, *, after: int | None = None, limit: int = 100) -> Page:
    with db.begin() as session:
        return feed.read(session, wanted, after=after, limit=limit)


def grown_old(db: Db, up_to: int, by: timedelta = timedelta(days=31)) -> None:
    """Let the events up to this position have been appended longer ago."""
    first = update(feed_events).where(feed_events.c.position <= up_to)
    with db.begin() as session:
        session.execute(first.values(appended_at=feed_events.c.appended_at - by))


MANY = text("""
    INSERT INTO feed_events (position, event_id, type, aggregate_id, payload, created_at, appended_at)
    SELECT n, gen_random_uuid(), 'booking.created', gen_random_uuid(), '{}', now(), now()
    FROM generate_series(1, :count) AS n
""")


def many_events(db: Db, count: int) -> None:
    """Fill an empty feed with so many events, quickly."""
    with db.begin() as session:
        session.execute(MANY, {"count": count})
