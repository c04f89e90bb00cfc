"""Settling: the outcomes of deliveries are written if the rows are still this process's to settle."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import compress
from operator import not_

from sqlalchemy import BigInteger, DateTime, String, Uuid, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from domain.outbox.delivery.history import History
from domain.outbox.delivery.lanes import LeasedLane, fence, release, release_all
from domain.outbox.delivery.outcomes import Delivery, Outcome, is_processed
from domain.outbox.delivery.row_updates import RetryPolicy
from domain.outbox.delivery.settlement import Settlement, write
from domain.outbox.table import BY_AGGREGATE, LONG_AGO, Row, calls, lane_of, outbox, pending, waiting, within


def settle(
    session: Session,
    leased: Sequence[LeasedLane],
    deliveries: Sequence[Delivery],
    *,
    retry_policy: RetryPolicy,
    history: History,
    is_last: bool = False,
) -> Settlement | None:
    """Write the outcomes of a batch. Return None, with nothing written, if its lanes are not ours any more.

    `history` is what the destination has lately answered this process; the batch is added to it. With `is_last` the
    lanes are released in the same statement that fences them; several lanes always are.
    """
    kept = _release(session, leased, deliveries) if is_last or len(leased) > 1 else _fence(session, leased[0])
    if kept is None:
        return None
    at, lanes = kept
    ours, lost = _by_lanes(deliveries, {lane.number for lane in lanes})
    settlement = write(
        session,
        leased[0].destination,
        ours,
        at=at,
        retry_policy=retry_policy,
        history=history,
        probing=leased[0].probing,
        liveness_key=leased[0].liveness_key,
    )
    return replace(settlement, fenced=lost)


def _by_lanes(
    deliveries: Sequence[Delivery], numbers: Collection[int]
) -> tuple[Sequence[Delivery], Sequence[Delivery]]:
    """Return the deliveries of the lanes with these numbers, and the others."""
    are_of = [lane_of(row.aggregate_id) in numbers for row, _ in deliveries]
    return [*compress(deliveries, are_of)], [*compress(deliveries, map(not_, are_of))]


def _fence(session: Session, lane: LeasedLane) -> tuple[datetime, Collection[LeasedLane]] | None:
    at = fence(session, lane)
    return (at, [lane]) if at else None


def _release(
    session: Session, leased: Sequence[LeasedLane], deliveries: Sequence[Delivery]
) -> tuple[datetime, Collection[LeasedLane]] | None:
    unprocessed = {lane_of(row.aggregate_id) for row, outcome in deliveries if not is_processed(outcome)}
    last = {lane_of(row.aggregate_id): row.id for row, _ in deliveries}
    settled_up_to = {lane: 0 if lane.number in unprocessed else last.get(lane.number, 0) for lane in leased}
    if len(leased) > 1:
        return release_all(session, settled_up_to)
    at = release(session, leased[0], settled_up_to=settled_up_to[leased[0]])
    return (at, leased) if at else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that has outlasted its batch, when that was settled, and until when its row waits for it.

    The row has no lane. Its time is its fence: whoever else touches the row gives it another time, or none.
    """

    destination: str
    row: Row
    since: datetime
    until: datetime


def settle_late(
    session: Session, call: Call, outcome: Outcome, *, retry_policy: RetryPolicy, history: History
) -> Settlement | None:
    """Write the outcome of a call that has outlasted its batch. Return None if its row does not wait for it any more.

    The later rows of its aggregate have waited with it. They are due now, or when its own next attempt is. `waiting` is
    by how many more rows wait: those that are due now are taken off.
    """
    at = _take(session, call)
    if at is None:
        return None
    settlement = write(
        session,
        call.destination,
        [(call.row, outcome)],
        at=at,
        retry_policy=retry_policy,
        history=history,
        since=call.since,
    )
    later = session.execute(_MOVE_LATER_ROWS.returning(outbox.c.id), _of(call)).all()
    # Later rows that have waited with it wait on with it, or do not wait any more.
    return settlement if settlement.waiting else replace(settlement, waiting=-len(later))


def give_up(session: Session, call: Call) -> None:
    """Have the row of a call that has not ended sent again at once: its process ends."""
    if _take(session, call):
        due = update(outbox).where(outbox.c.id == call.row.id)
        session.execute(due.values(available_at=LONG_AGO))
        session.execute(_MOVE_LATER_ROWS, _of(call))


def _take(session: Session, call: Call) -> datetime | None:
    """Lock the row of a call, and forget the call. Return the time, or None if the row waits for it no longer."""
    at = session.execute(_LOCK, _of(call)).scalar_one_or_none()
    if at:
        session.execute(delete(calls).where(calls.c.id == call.row.id))
    return at


def _of(call: Call) -> dict[str, object]:
    return {
        "row": call.row.id,
        "until": call.until,
        "to": call.destination,
        "of": call.row.aggregate_id,
    }


_ROW, _UNTIL = bindparam("row", type_=BigInteger), bindparam("until", type_=DateTime(timezone=True))
_LOCK = (
    select(func.clock_timestamp())
    .select_from(outbox)
    .where(outbox.c.id == _ROW, outbox.c.available_at == _UNTIL, pending)
    .with_for_update(key_share=True)
)
_own = outbox.alias("own")
_own_wait = (
    select(_own.c.available_at)
    .where(_own.c.id == _ROW, _own.c.processed_at.is_(None), _own.c.dead_at.is_(None))
    .scalar_subquery()
)
_AGGREGATE = bindparam("to", type_=String), bindparam("of", type_=Uuid)
_MOVE_LATER_ROWS = (
    update(outbox)
    .where(waiting, within(BY_AGGREGATE, _AGGREGATE, above=_ROW))
    .where(outbox.c.available_at == _UNTIL)
    .values(available_at=func.coalesce(_own_wait, LONG_AGO))
)
