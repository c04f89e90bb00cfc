"""Where each delivery of an event or of a reservation stands, and why it is not delivered."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, select, union_all
from sqlalchemy.orm import Session

from domain.outbox.table import destinations, lanes, outbox
from domain.runtime.database import CLOCK
from domain.runtime.errors import NothingPromised

#: A reservation has a handful of events for a handful of destinations.
DELIVERIES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    since: datetime
    error: str | None
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    at: datetime
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrouted:
    """The present routes don't know the destination, so no worker that has them serves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Homeless:
    """The database has no lane for it: no worker has ever served this destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpen:
    since: datetime | None
    until: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """An earlier promise of the same reservation to the same destination has to leave first."""

    event_id: UUID
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackingOff:
    until: datetime
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InHand:
    """A worker holds the lane: it delivers this now, or what is before it in the lane."""

    holder: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Nothing is in the way, and no worker has come yet."""


End = Processed | Dead | Discarded
Obstacle = Unrouted | Homeless | Paused | BreakerOpen | Behind | BackingOff | InHand | Ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One promise to one destination. It has one `end`, or it is pending and has obstacles, the gravest first."""

    event_id: UUID
    aggregate_id: UUID
    type: str
    destination: str
    created_at: datetime
    replayed_at: datetime | None
    end: End | None
    obstacles: Sequence[Obstacle]


def why(session: Session, which: UUID, routed: Collection[str]) -> Sequence[Delivery]:
    """Return the deliveries of an event, or of a reservation in order.

    `routed` are the destinations that the present routes know. Raises NothingPromised.
    """
    found = session.execute(_deliveries(outbox.c.event_id == which)).all()
    found = found or session.execute(_deliveries(outbox.c.aggregate_id == which)).all()
    if not found:
        raise NothingPromised(which)
    return [_delivery(row, routed) for row in found]


def _first_before(is_ready: bool) -> Any:
    """Return the first of the ready, or of the waiting, rows before a row of its aggregate. An index has either."""
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
    home = destinations.c.name == outbox.c.destination
    # A breaker is open for as long as a probe has not found the destination up, due or not.
    return (
        select(
            outbox,
            (outbox.c.available_at > CLOCK).label("backs_off"),
            destinations.c.paused,
            destinations.c.reason,
            destinations.c.failures,
            destinations.c.opened_at,
            destinations.c.open_until,
            lanes.c.lane.is_not(None).label("has_lane"),
            lanes.c.holder,
            lanes.c.leased_until,
            and_(lanes.c.holder.is_not(None), lanes.c.leased_until > CLOCK).label("is_held"),
            _head.c.event_id.label("head_event_id"),
            _head.c.type.label("head_type"),
        )
        .select_from(outbox)
        .outerjoin(destinations, home)
        .outerjoin(lanes, lane)
        .outerjoin(_head, and_(outbox.c.processed_at.is_(None), outbox.c.dead_at.is_(None)))
        .where(condition)
        .order_by(outbox.c.id)
        .limit(DELIVERIES)
    )


def _delivery(row: Any, routed: Collection[str]) -> Delivery:
    end = _end(row)
    return Delivery(
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
    """Return all that is in the way at once: taking one away may show the next."""
    found: list[Obstacle] = []
    if row.destination not in routed:
        found.append(Unrouted())
    if not row.has_lane:
        found.append(Homeless())
    if row.paused:
        found.append(Paused(reason=row.reason))
    if row.failures:
        found.append(BreakerOpen(since=row.opened_at, until=row.open_until, reason=row.reason))
    if row.head_event_id:
        found.append(Behind(event_id=row.head_event_id, type=row.head_type))
    if row.backs_off:
        found.append(BackingOff(until=row.available_at, attempts=row.attempts, error=row.last_error))
    if row.is_held:
        found.append(InHand(holder=row.holder, until=row.leased_until))
    return found
