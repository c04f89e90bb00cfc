"""Changing a status: the only way there is, for every endpoint, step and maintenance job."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, Uuid, any_, bindparam, cast, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain import items, outbox
from domain.outbox import Event, Routes
from domain.reservations import events
from domain.reservations.lifecycle import RELEASING, TRANSITIONS, Status
from domain.reservations.table import Reservation, history, read, reservation_lines, reservations
from domain.runtime.database import arrays, copy, lists, now
from domain.runtime.errors import HoldExpired, Refusal, StaleVersion, UnknownReservation, WrongStatus

#: Who changes a status when nobody asked for it.
SYSTEM = "system"

NOT_CONFIRMED = "the hold was not confirmed in time"

#: The column that notes when a status was reached.
REACHED = {
    Status.CONFIRMED: "confirmed_at",
    Status.CHECKED_IN: "checked_in_at",
    Status.COMPLETED: "completed_at",
    Status.CANCELLED: "cancelled_at",
}

#: The statuses of which the reservation itself keeps who ended it and why, beside its history.
KEEPS_REASON = frozenset({Status.CANCELLED, Status.REJECTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A locked reservation, its new status, the reason, and who asked. `headers` tie its events to the request."""

    of: Reservation
    to: Status
    reason: str | None = None
    changed_by: str = SYSTEM
    headers: Mapping[str, str] = field(default_factory=dict)


def lock(session: Session, ids: Collection[UUID]) -> Sequence[Reservation]:
    """Lock these reservations until the transaction ends, in order of id. Unknown ones are left out."""
    return [Reservation.of(row) for row in session.execute(_LOCK, {"ids": list(ids)})]


_LOCK = (
    read.where(reservations.c.id == any_(cast(bindparam("ids"), ARRAY(Uuid))))
    .order_by(reservations.c.id)
    .with_for_update(of=reservations, key_share=True)
)


def change(
    session: Session,
    reservation_id: UUID,
    to: Status,
    *,
    reason: str | None = None,
    changed_by: str = SYSTEM,
    precondition: Callable[[Reservation], None] | None = None,
    expected_version: int | None = None,
    headers: Mapping[str, str] | None = None,
    routes: Routes,
) -> Reservation | Refusal:
    """Lock one reservation and change its status. Raises UnknownReservation, StaleVersion.

    A reservation that has the status already is returned as it is: whoever lost the first answer asks again, with the
    version from before. Otherwise `precondition` is called with the reservation and may raise a refusal, and an
    expected version must be the current one. For the answer see `transition`.
    """
    locked = lock(session, [reservation_id])
    if not locked:
        raise UnknownReservation(reservation_id)
    (one,) = locked
    if one.status is to:
        return one
    # A hold that has lapsed is refused as such, whatever version is named: its version depends on maintenance.
    if (precondition or expected_version is not None) and not _has_lapsed(one, now(session)):
        _require(one, precondition, expected_version)
    asked = Change(of=one, to=to, reason=reason, changed_by=changed_by, headers=headers or {})
    return transition(session, [asked], routes)[0]


def _require(
    one: Reservation, precondition: Callable[[Reservation], None] | None, expected_version: int | None
) -> None:
    if precondition is not None:
        precondition(one)
    if expected_version is not None and expected_version != one.version:
        raise StaleVersion(expected_version, one.version)


def transition(session: Session, changes: Sequence[Change], routes: Routes) -> Sequence[Reservation | Refusal]:
    """Change the status of reservations that the caller has locked. Return a result for each.

    An overdue hold becomes EXPIRED instead, whatever was asked, and its result is HoldExpired: commit, and only then
    raise it. The result is the same if it is EXPIRED already. Any other refusal changes nothing. Pass all changes of
    a transaction in one call: it locks their items in order.
    """
    if not changes:
        return []
    moment = now(session)
    moves = [_decide(one, moment) for one in changes]
    _write(session, [move for move in moves if move is not None], routes)
    return [_answer(one, move) for one, move in zip(changes, moves, strict=True)]


@dataclass(frozen=True, slots=True)
class _Move:
    change: Change
    after: Reservation


def _decide(asked: Change, moment: datetime) -> _Move | None:
    """Return the move that a change leads to, or None if the lifecycle does not allow it."""
    if asked.to is not Status.EXPIRED and _is_overdue(asked.of, moment):
        asked = Change(of=asked.of, to=Status.EXPIRED, reason=NOT_CONFIRMED, headers=asked.headers)
    if asked.to not in TRANSITIONS.get(asked.of.status, ()):
        return None
    after = replace(asked.of, status=asked.to, version=asked.of.version + 1, updated_at=moment)
    if asked.to is Status.CONFIRMED:
        after = replace(after, confirmed_at=moment)
    if asked.to is Status.CANCELLED:
        after = replace(after, cancelled_at=moment)
    if asked.to in KEEPS_REASON:
        after = replace(after, cancellation_reason=asked.reason)
    return _Move(asked, after)


def _has_lapsed(reservation: Reservation, moment: datetime) -> bool:
    """Return whether a reservation is a hold that was not confirmed in time, seen by maintenance or not."""
    return reservation.status is Status.EXPIRED or _is_overdue(reservation, moment)


def _is_overdue(reservation: Reservation, moment: datetime) -> bool:
    expires_at = reservation.expires_at
    return reservation.status is Status.PENDING and expires_at is not None and expires_at <= moment


def _answer(asked: Change, move: _Move | None) -> Reservation | Refusal:
    status = asked.of.status if move is None else move.after.status
    if status is Status.EXPIRED and asked.to is not Status.EXPIRED:
        assert asked.of.expires_at is not None
        return HoldExpired(asked.of.id, asked.of.expires_at)
    return WrongStatus(asked.of.status, asked.to) if move is None else move.after


def _write(session: Session, moves: Sequence[_Move], routes: Routes) -> None:
    if not moves:
        return
    for to in {move.after.status for move in moves}:
        _rewrite(session, to, [move for move in moves if move.after.status is to])
    _rewrite_lines(session, [move.after for move in moves if move.after.further_lines])
    copy(session, history, _HISTORY_COLUMNS, map(_history, moves))
    outbox.record(session, (event for move in moves for event in _events(move)), routes)
    _give_back(session, [move.after for move in moves if move.after.status in RELEASING])


def _events(move: _Move) -> Sequence[Event]:
    return events.of_change(move.after, move.change.of.status, move.change.reason, move.change.headers)


def _rewrite(session: Session, to: Status, moves: Sequence[_Move]) -> None:
    values: dict[str, Any] = {
        "status": to,
        "version": reservations.c.version + 1,
        "updated_at": moves[0].after.updated_at,
    }
    if to in REACHED:
        values[REACHED[to]] = moves[0].after.updated_at
    if to in KEEPS_REASON:
        values |= {"cancellation_reason": _changed.c.reason, "cancelled_by": _changed.c.changed_by}
    changes = lists(
        _changed,
        id=[move.after.id for move in moves],
        reason=[move.change.reason for move in moves],
        changed_by=[move.change.changed_by for move in moves],
    )
    session.execute(update(reservations).where(reservations.c.id == _changed.c.id).values(values), changes)


def _rewrite_lines(session: Session, changed: Sequence[Reservation]) -> None:
    """Write into the further lines of reservations until when they are held, or that they are not only held."""
    for held_until in {_held_until(one) for one in changed}:
        ids = [one.id for one in changed if _held_until(one) == held_until]
        session.execute(_HOLD_LINES, {"ids": ids, "until": held_until})


def _held_until(one: Reservation) -> datetime | None:
    return one.expires_at if one.status is Status.PENDING else None


_changed = arrays("changed", id=Uuid, reason=Text, changed_by=Text)
_ids = cast(bindparam("ids"), ARRAY(Uuid))
_HOLD_LINES = (
    update(reservation_lines)
    .values(held_until=bindparam("until", type_=reservation_lines.c.held_until.type))
    .where(reservation_lines.c.reservation_id == any_(_ids))
)
_HISTORY_COLUMNS = ("reservation_id", "from_status", "to_status", "changed_by", "reason")


def _history(move: _Move) -> tuple[Any, ...]:
    return move.after.id, move.change.of.status, move.after.status, move.change.changed_by, move.change.reason


def _give_back(session: Session, released: Sequence[Reservation]) -> None:
    """Give the units of these reservations back to their items. Reservations are always locked before items."""
    quantities: Counter[int] = Counter()
    for one in released:
        quantities[one.item_id] += one.quantity
        for line in one.further_lines:
            quantities[line.item_id] += line.quantity
    if quantities:
        items.lock(session, quantities)
        items.move(session, quantities)
