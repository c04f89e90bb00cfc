"""The outbox in tests: aggregates by lane, rows, time that passes, and a destination without a server."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row as Record
from sqlalchemy import func, select, update

from domain import outbox
from domain.fulfilment import STEP_TYPES
from domain.outbox import (
    LEASE,
    CommitHorizon,
    Delivered,
    Failed,
    History,
    LeasedLane,
    Outcome,
    RetryPolicy,
    Row,
    Unreachable,
)
from domain.outbox.delivery.outcomes import Delivery
from domain.outbox.routes import Route, Routes
from domain.outbox.table import LANES, destinations, lanes, waiting
from domain.outbox.table import outbox as table
from tests.support.builders import Db, an_event, recorded, routes_of, with_routes
from worker.destinations import Destination
from worker.ordering.ordered_calls import OrderedCalls
from worker.ordering.pace import Pace
from worker.relay.health import Health
from worker.relay.late_answers import LateAnswers
from worker.relay.leases import Leases
from worker.relay.relay import Relay

#: The destination of these tests.
SHOP = "shop"

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def with_shop(db: Db, **fields: Any) -> Db:
    """The same database, where every event goes to the shop and nowhere else."""
    shop = Route(**({"name": SHOP, "url": "null:"} | fields))
    return with_routes(db, Routes([shop], step_types=STEP_TYPES))


def an_aggregate(lane: int = 0) -> UUID:
    return UUID(int=uuid4().int // LANES * LANES + lane)


def a_fetched_row(**fields: Any) -> Row:
    """A row as `fetch` returns it, without a database. Its fields are as given, or those of a new row."""
    untried: dict[str, Any] = {
        "event_id": uuid4(),
        "aggregate_id": uuid4(),
        "type": "booking.created",
        "payload": "{}",
        "headers": "{}",
        "attempts": 0,
        "created_at": NOON,
        "unreachable_at": None,
        "waits_until": None,
        "fetched_at": NOON,
    }
    return Row(**(untried | fields))


def recorded_for(db: Db, *aggregates: UUID) -> Sequence[int]:
    """Record an event for each aggregate, in this order. Return the ids of the rows."""
    recorded(db, *(an_event(aggregate) for aggregate in aggregates))
    return [row.id for row in rows(db)][-len(aggregates) :]


def rows(db: Db) -> Sequence[Record[Any]]:
    """All rows in order of id."""
    with db.begin() as session:
        return session.execute(select(table).order_by(table.c.id)).all()


def row(db: Db, row_id: int) -> Record[Any]:
    (found,) = [one for one in rows(db) if one.id == row_id]
    return found


def states(db: Db, *ids: int) -> list[str]:
    """Return the state of these rows, or of all rows: processed, dead, waiting or ready."""
    return [_of(one) for one in rows(db) if one.id in ids or not ids]


def _of(one: Record[Any]) -> str:
    if one.processed_at or one.dead_at:
        return "processed" if one.processed_at else "dead"
    return "waiting" if one.available_at else "ready"


def destination(db: Db, name: str = SHOP) -> Record[Any]:
    with db.begin() as session:
        return session.execute(select(destinations).where(destinations.c.name == name)).one()


def claimed(db: Db, name: str = SHOP, holder: str | None = None) -> LeasedLane | None:
    with db.begin() as session:
        return outbox.claim(session, [name], holder or uuid4().hex, CommitHorizon())


def a_lane(db: Db, name: str = SHOP) -> LeasedLane:
    """A lane that was free and has due rows, and is leased to us now."""
    lane = claimed(db, name)
    assert lane is not None
    return lane


@contextmanager
def leases_renewed(db: Db) -> Iterator[None]:
    """Renew all leases while the block runs, as their workers would: a process may take long to start."""
    renewed = update(lanes).where(lanes.c.holder.is_not(None))
    ended = Event()

    def renew() -> None:
        while not ended.wait(LEASE.total_seconds() / 20):
            with db.begin() as session:
                session.execute(renewed.values(leased_until=func.clock_timestamp() + LEASE))

    thread = Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def fetched(db: Db, lane: LeasedLane, *, after: int = 0, limit: int = 100) -> Sequence[Row]:
    with db.begin() as session:
        return outbox.fetch(session, lane, after=after, limit=limit)


def settled(
    db: Db,
    lane: LeasedLane,
    deliveries: Sequence[Delivery],
    *,
    max_attempts: int = 12,
    history: History | None = None,
) -> outbox.Settlement | None:
    with db.begin() as session:
        return outbox.settle(
            session,
            [lane],
            deliveries,
            retry_policy=a_retry_policy(max_attempts),
            history=history or History(),
        )


def a_retry_policy(max_attempts: int = 1) -> RetryPolicy:
    return Route(name=SHOP, url="null:", max_attempts=max_attempts).retry_policy


def released(db: Db, lane: LeasedLane) -> None:
    with db.begin() as session:
        outbox.release(session, lane)


def time_passes(db: Db, by: timedelta = timedelta(hours=2)) -> None:
    """Move the times that retries, leases and circuit breakers wait for into the past, as if `by` had passed."""
    with db.begin() as session:
        session.execute(update(table).where(waiting).values(available_at=table.c.available_at - by))
        session.execute(update(lanes).values(leased_until=lanes.c.leased_until - by))
        session.execute(
            update(destinations).values(
                open_until=destinations.c.open_until - by, recovered_at=destinations.c.recovered_at - by
            )
        )


def aged(db: Db, row_id: int, by: timedelta) -> None:
    """Change the time at which a row was recorded: make it earlier by this much."""
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == row_id).values(created_at=table.c.created_at - by))


#: Failures that last for longer than a run of the relay, whatever the jitter.
NOT_NOW = Failed("not now", retry_after=timedelta(minutes=1))
DOWN = Unreachable("down", retry_after=timedelta(minutes=1))


def some_health(names: Iterable[str]) -> dict[str, Health]:
    """The health of destinations of which nothing is known yet."""
    return {name: Health(Pace(Event())) for name in names}


class FakeDestination:
    """A destination without a server: it delivers each row, unless `answer` or `failures` gives another outcome."""

    def __init__(self, answer: Callable[[Row], Outcome] = lambda _: Delivered(), *, concurrency: int = 1) -> None:
        self.answer = answer
        #: The outcomes of rows that fail, by the id of the row.
        self.failures: dict[int, Outcome] = {}
        #: Every row that it was called with, in order, whatever the outcome.
        self.called: list[int] = []
        self.pace = Pace(Event())
        self._calls = OrderedCalls(concurrency, self.pace, timeout_seconds=10)

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return self._calls.deliver(rows, self._call)

    def _call(self, row: Row) -> Outcome:
        self.called.append(row.id)
        return self.failures[row.id] if row.id in self.failures else self.answer(row)

    def close(self) -> None:
        self._calls.close()


@contextmanager
def relaying(db: Db, shop: Destination, **fields: Any) -> Iterator[Relay]:
    """A relay whose one destination is this shop. Events that are recorded with its `db` go there."""
    sessions = with_shop(db, **fields)
    relay = a_relay(sessions, {SHOP: routes_of(sessions).sinks[0]}, {SHOP: shop})
    try:
        yield relay
    finally:
        relay.close(grace_seconds=0)


def a_relay(db: Db, routes: Mapping[str, Route], destinations: Mapping[str, Destination]) -> Relay:
    """A relay to these destinations, of which nothing is known yet. Close it."""
    health = some_health(destinations)
    for name, one in destinations.items():
        if isinstance(one, FakeDestination):
            health[name] = Health(one.pace)
    return Relay(
        db=db,
        routes=routes,
        destinations=destinations,
        leases=Leases(db),
        late_answers=LateAnswers(db),
        health=health,
    )
