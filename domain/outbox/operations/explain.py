"""Explaining deliveries: the state of each delivery of an event or a reservation, and why it is not delivered."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import and_, select, union_all
from sqlalchemy.orm import Session

from domain.outbox.operations.leases import IS_LEASED
from domain.outbox.table import calls, destinations, lanes, of_aggregate, outbox
from domain.runtime import database
from domain.runtime.database import CLOCK
from domain.runtime.errors import NotInOutbox

#: The most rows that are explained: a reservation has a few events, each for a few destinations.
DELIVERIES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """The row was delivered, or its step was answered or had nothing left to ask: for operators it is delivered."""

    kind: ClassVar = "delivered"
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """The row is a dead letter: it is not tried any more."""

    kind: ClassVar = "dead"
    since: datetime
    error: str | None
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """The row is a dead letter that an operator has discarded."""

    kind: ClassVar = "discarded"
    at: datetime
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrouted:
    """The present routes do not have the destination, so no worker with these routes delivers to it."""

    kind: ClassVar = "unrouted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unregistered:
    """The database has no lane for the row: no worker has ever registered this destination."""

    kind: ClassVar = "unregistered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """The destination is paused."""

    kind: ClassVar = "paused"
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpen:
    """The destination is down, and the next probe has not shown otherwise yet."""

    kind: ClassVar = "breaker_open"
    since: datetime | None
    until: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedByEarlierEvent:
    """An earlier event of the same reservation has to be delivered to the same destination first."""

    kind: ClassVar = "blocked_by_earlier_event"
    event_id: UUID
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The row waits until a time: after failed attempts, or in an outage, or with an earlier row of its aggregate.

    After failed attempts `error` is the last error. With no failed attempt, an `error` says how the destination was
    down; without an `error`, the row waits because an earlier one does.
    """

    kind: ClassVar = "waiting"
    until: datetime
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallInFlight:
    """The row was sent, and its destination has not answered yet. The answer is waited for until then."""

    kind: ClassVar = "in_flight"
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A worker has leased the lane: it delivers this row, or earlier rows of the lane, now."""

    kind: ClassVar = "leased"
    holder: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Nothing prevents the delivery; the next worker makes it."""

    kind: ClassVar = "ready"


End = Processed | Dead | Discarded
Wait = CallInFlight | Waiting
Obstacle = Unrouted | Unregistered | Paused | BreakerOpen | BlockedByEarlierEvent | Wait | Leased | Ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The state of one event on its way to one destination.

    It has one `end`, or the row is pending and has obstacles, the gravest first.
    """

    event_id: UUID
    aggregate_id: UUID
    type: str
    destination: str
    created_at: datetime
    replayed_at: datetime | None
    end: End | None
    obstacles: Sequence[Obstacle]


def explain(session: Session, subject_id: UUID, routed: Collection[str]) -> Sequence[Explanation]:
    """Return the deliveries of an event, or those of a reservation in order.

    `routed` are the names of the destinations in the present routes. Raises NotInOutbox.
    """
    database.read_by_index(session)
    found = session.execute(_deliveries(outbox.c.event_id == subject_id)).all()
    found = found or session.execute(_deliveries(of_aggregate(subject_id))).all()
    if not found:
        raise NotInOutbox(subject_id)
    return [_explanation(row, routed) for row in found]


def _first_before(is_ready: bool) -> Any:
    """Return the first ready, or the first waiting, row before a row of its aggregate. Each has an index."""
    earlier = outbox.alias()
    return (
        select(earlier.c.id, earlier.c.event_id, earlier.c.type)
        .where(earlier.c.destination == outbox.c.destination, earlier.c.aggregate_id == outbox.c.aggregate_id)
        .where(earlier.c.lane == outbox.c.lane, earlier.c.id < outbox.c.id)
        .where(earlier.c.processed_at.is_(None), earlier.c.dead_at.is_(None))
        .where(earlier.c.available_at.is_(None) if is_ready else earlier.c.available_at.is_not(None))
        .order_by(earlier.c.id)
        .limit(1)
        .correlate(outbox)
        .subquery()
    )


_either = union_all(*(select(_first_before(is_ready)) for is_ready in (True, False))).subquery("either")
_head = select(_either.c.event_id, _either.c.type).order_by(_either.c.id).limit(1).lateral("head")


def _deliveries(condition: Any) -> Any:
    lane = and_(lanes.c.destination == outbox.c.destination, lanes.c.lane == outbox.c.lane)
    registered = destinations.c.name == outbox.c.destination
    # A breaker is open until a probe has found the destination up, even if the probe is due.
    return (
        select(
            outbox,
            (outbox.c.available_at > CLOCK).label("is_waiting"),
            select(calls.c.id).where(calls.c.id == outbox.c.id).exists().label("is_called"),
            destinations.c.paused,
            destinations.c.reason,
            destinations.c.failures,
            destinations.c.opened_at,
            destinations.c.open_until,
            lanes.c.lane.is_not(None).label("has_lane"),
            lanes.c.holder,
            lanes.c.leased_until,
            IS_LEASED.label("is_leased"),
            _head.c.event_id.label("head_event_id"),
            _head.c.type.label("head_type"),
        )
        .select_from(outbox)
        .outerjoin(destinations, registered)
        .outerjoin(lanes, lane)
        .outerjoin(_head, and_(outbox.c.processed_at.is_(None), outbox.c.dead_at.is_(None)))
        .where(condition)
        .order_by(outbox.c.id)
        .limit(DELIVERIES)
    )


def _explanation(row: Any, routed: Collection[str]) -> Explanation:
    end = _end(row)
    return Explanation(
        event_id=row.event_id,
        aggregate_id=row.aggregate_id,
        type=row.type,
        destination=row.destination,
        created_at=row.created_at,
        replayed_at=row.replayed_at,
        end=end,
        obstacles=() if end else _obstacles(row, routed) or (Ready(),),
    )


def _end(row: Any) -> End | None:
    if row.processed_at:
        return Processed(at=row.processed_at)
    if row.discarded_at:
        return Discarded(at=row.discarded_at, error=row.last_error)
    if row.dead_at:
        return Dead(since=row.dead_at, error=row.last_error, attempts=row.attempts)
    return None


def _obstacles(row: Any, routed: Collection[str]) -> Sequence[Obstacle]:
    """Return all obstacles at once: removing one of them may not be enough."""
    found: list[Obstacle] = []
    if row.destination not in routed:
        found.append(Unrouted())
    if not row.has_lane:
        found.append(Unregistered())
    if row.paused:
        found.append(Paused(reason=row.reason))
    if row.failures:
        found.append(BreakerOpen(since=row.opened_at, until=row.open_until, reason=row.reason))
    if row.head_event_id:
        found.append(BlockedByEarlierEvent(event_id=row.head_event_id, type=row.head_type))
    if row.is_waiting:
        found.append(_wait(row))
    if row.is_leased:
        found.append(Leased(holder=row.holder, until=row.leased_until))
    return found


def _wait(row: Any) -> Wait:
    if row.is_called:
        return CallInFlight(until=row.available_at)
    # The error of a row that was replayed is from before the replay, until the row is tried again.
    error = row.last_error if row.attempts or row.unreachable_at else None
    return Waiting(until=row.available_at, attempts=row.attempts, error=error)
