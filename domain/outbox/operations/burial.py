"""Burying: pending rows become dead letters, whatever a worker does with them at this moment."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from domain.access import audit
from domain.access.audit import AuditEntry
from domain.outbox.delivery.lanes import FREE, LEASE
from domain.outbox.operations.selection import Selection
from domain.outbox.table import BY_AGGREGATE, calls, lanes, outbox, pending, waiting, within
from domain.runtime.database import is_given

#: A call that has begun has ended after this time: no time-out is longer than 60 s. The lease is for the time between.
LONGEST_CALL = timedelta(seconds=60) + LEASE


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRow:
    """A row that is buried, or would be. `headers` is JSON text.

    Until `busy_until`, if that is there, a worker may be sending it, so that its destination may get it all the same.
    """

    id: int
    event_id: UUID
    aggregate_id: UUID
    destination: str
    lane: int
    type: str
    attempts: int
    last_error: str | None
    headers: str
    busy_until: datetime | None

    @property
    def in_flight(self) -> bool:
        return self.busy_until is not None


def find(session: Session, selection: Selection) -> Sequence[PendingRow]:
    """Return the rows that `bury` would bury, in order of id. Nothing is locked."""
    return [PendingRow(**row._mapping) for row in session.execute(_ROWS.where(*selection.conditions()))]


def bury(session: Session, selection: Selection, entry: AuditEntry) -> Sequence[PendingRow]:
    """Make the pending rows of a selection dead letters, and have the rows that wait behind them tried at once.

    Return the rows. Whoever delivers one of their lanes at this moment loses it: what that worker has sent and not
    settled is sent again, without the buried rows. A row that was settled before is left alone.
    """
    found = find(session, selection)
    _lock(session, {(row.destination, row.lane) for row in found})
    # Read again: until the lanes were locked, their workers could settle rows.
    buried = [PendingRow(**row._mapping) for row in session.execute(_ROWS_BY_ID, _ids(found))]
    if buried:
        session.execute(_BURY, _ids(buried) | {"reason": f"Buried by {entry.who}: {entry.why}"})
        session.execute(_TRY_THOSE_BEHIND, _ids(buried))
        _revoke(session, {(row.destination, row.lane) for row in buried})
        audit.record(session, "bury", who=entry.who, why=entry.why, selection=selection.facts(), rows=len(buried))
    return buried


def let_calls_end(session: Session, buried: Sequence[PendingRow]) -> None:
    """Have what was recorded behind buried rows, as they were buried, wait until their calls have ended.

    A release that overtakes the call that it is to undo finds nothing to release.
    """
    for row in buried:
        if row.busy_until:
            behind = within(BY_AGGREGATE, (row.destination, row.aggregate_id), above=row.id)
            ready = update(outbox).where(behind, pending, outbox.c.available_at.is_(None))
            session.execute(ready.values(available_at=row.busy_until))


def _ids(rows: Collection[PendingRow]) -> dict[str, Any]:
    return {"ids": [row.id for row in rows]}


_LANE = lanes.c.destination, lanes.c.lane
_its_lane = and_(lanes.c.destination == outbox.c.destination, lanes.c.lane == outbox.c.lane)
_is_leased = and_(lanes.c.holder.is_not(None), lanes.c.leased_until > func.clock_timestamp())
_is_called = and_(
    outbox.c.available_at > func.clock_timestamp(), select(calls.c.id).where(calls.c.id == outbox.c.id).exists()
)
_ROWS = (
    select(
        outbox.c.id,
        outbox.c.event_id,
        outbox.c.aggregate_id,
        outbox.c.destination,
        outbox.c.lane,
        outbox.c.type,
        outbox.c.attempts,
        outbox.c.last_error,
        cast(outbox.c.headers, Text).label("headers"),
        # A row that waits becomes ready, and is sent, only by a worker that has its lane. Or it waits for its call.
        case(
            (_is_called, outbox.c.available_at),
            (and_(outbox.c.available_at.is_(None), _is_leased), func.clock_timestamp() + LONGEST_CALL),
        ).label("busy_until"),
    )
    .outerjoin_from(outbox, lanes, _its_lane)
    .order_by(outbox.c.id)
)


_ROWS_BY_ID = _ROWS.where(is_given(outbox.c.id), pending).with_for_update(of=outbox)


def _lock(session: Session, keys: Collection[tuple[str, int]]) -> None:
    """Lock lanes. A worker locks the lane before it settles rows or makes waiting ones ready."""
    session.execute(select(*_LANE).where(tuple_(*_LANE).in_(keys)).order_by(*_LANE).with_for_update())


def _revoke(session: Session, keys: Collection[tuple[str, int]]) -> None:
    """Take lanes from their workers. They are free at once, and the fence rejects what the workers still settle."""
    taken = update(lanes).where(tuple_(*_LANE).in_(keys))
    session.execute(taken.values(**FREE, epoch=lanes.c.epoch + 1))


# Null without an error, and `concat` leaves out what is null.
_last_error = literal(". Its last error was: ").concat(outbox.c.last_error)
_BURY = (
    update(outbox)
    .where(is_given(outbox.c.id))
    .values(
        dead_at=func.now(),
        available_at=None,
        last_error=func.concat(bindparam("reason", type_=Text), _last_error),
    )
)
# They are not ready at once, but due: only the next run over the lane makes them ready, which reads it from its
# beginning. A row that was tried itself waits for its own time.
_buried = outbox.alias("buried")
_is_behind = and_(
    outbox.c.destination == _buried.c.destination,
    outbox.c.aggregate_id == _buried.c.aggregate_id,
    outbox.c.id > _buried.c.id,
)
_TRY_THOSE_BEHIND = (
    update(outbox)
    .where(is_given(_buried.c.id), _is_behind)
    .where(waiting, outbox.c.attempts == 0, outbox.c.unreachable_at.is_(None))
    .values(available_at=func.now())
)
