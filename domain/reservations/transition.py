"""Changing a status: the one way there is, for every door, step and sweeper."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Uuid, any_, bindparam, cast, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain import items, outbox
from domain.database import copy, now
from domain.errors import HoldLapsed, Refusal, StalePrecondition, StaleVersion, UnknownReservation, WrongStatus
from domain.lifecycle import RELEASING, TRANSITIONS, Status
from domain.reservations import events
from domain.reservations.table import Reservation, history, read, reservations

#: Who changes a status when nobody asked for it.
SYSTEM = "system"

LAPSED = "the hold was not confirmed in time"

#: The column that notes when a status was reached.
TIMESTAMPS = {
    Status.CONFIRMED: "confirmed_at",
    Status.CHECKED_IN: "checked_in_at",
    Status.COMPLETED: "completed_at",
    Status.CANCELLED: "cancelled_at",
}


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
    if_match: int | None = None,
    expected_version: int | None = None,
) -> Reservation | Refusal:
    """Lock one reservation and take it to another status. Raises UnknownReservation, StalePrecondition, StaleVersion.

    A version that is given must be the current one. For the answer see `transition`.
    """
    held = lock(session, [reservation_id])
    if not held:
        raise UnknownReservation(reservation_id)
    if if_match not in (None, held[0].version):
        raise StalePrecondition(if_match, held[0].version)
    if expected_version not in (None, held[0].version):
        raise StaleVersion(expected_version, held[0].version)
    return transition(session, held, to, reason=reason, changed_by=changed_by)[0]


def transition(
    session: Session,
    held: Sequence[Reservation],
    to: Status,
    *,
    reason: str | None = None,
    changed_by: str = SYSTEM,
) -> Sequence[Reservation | Refusal]:
    """Take reservations that the caller has locked to another status, and answer for each.

    An overdue hold becomes EXPIRED instead, whatever was asked, and its answer is
    HoldLapsed: commit, and only then raise it. Any other refusal changes nothing.
    """
    moment = now(session)
    lapsed = [one for one in held if to is not Status.EXPIRED and _is_overdue(one, moment)]
    allowed = [one for one in held if one not in lapsed and to in TRANSITIONS.get(one.status, ())]
    moves = _plan(allowed, to, moment, reason, changed_by) + _plan(lapsed, Status.EXPIRED, moment, LAPSED, SYSTEM)
    _write(session, moves)
    after = {move.after.id: move.after for move in moves}
    return [_answer(one, to, after.get(one.id)) for one in held]


def _is_overdue(reservation: Reservation, moment: datetime) -> bool:
    expires_at = reservation.expires_at
    return reservation.status is Status.PENDING and expires_at is not None and expires_at <= moment


@dataclass(frozen=True, slots=True)
class _Move:
    before: Reservation
    after: Reservation
    reason: str | None
    changed_by: str


def _plan(
    held: Sequence[Reservation], to: Status, moment: datetime, reason: str | None, changed_by: str
) -> list[_Move]:
    stamps = {"updated_at": moment}
    if to is Status.CONFIRMED:
        stamps["confirmed_at"] = moment
    if to is Status.CANCELLED:
        stamps["cancelled_at"] = moment
    why = {"cancellation_reason": reason} if to is Status.CANCELLED else {}
    return [
        _Move(one, replace(one, status=to, version=one.version + 1, **stamps, **why), reason, changed_by)
        for one in held
    ]


def _answer(before: Reservation, to: Status, after: Reservation | None) -> Reservation | Refusal:
    if after is None:
        return WrongStatus(before.status, to)
    if after.status is not to:
        assert before.expires_at is not None
        return HoldLapsed(before.id, before.expires_at)
    return after


def _write(session: Session, moves: Sequence[_Move]) -> None:
    if not moves:
        return
    for to in {move.after.status for move in moves}:
        _rewrite(session, [move for move in moves if move.after.status is to])
    copy(
        session,
        history,
        ("reservation_id", "from_status", "to_status", "changed_by", "reason"),
        [(move.after.id, move.before.status, move.after.status, move.changed_by, move.reason) for move in moves],
    )
    outbox.record(session, (e for move in moves for e in events.of_change(move.after, move.before.status, move.reason)))
    _give_back(session, [move.after for move in moves if move.after.status in RELEASING])


def _rewrite(session: Session, moves: Sequence[_Move]) -> None:
    """Update the rows of moves that all go to one status, at one moment, for one reason."""
    first = moves[0]
    values: dict[str, object] = {
        "status": first.after.status,
        "version": reservations.c.version + 1,
        "updated_at": first.after.updated_at,
    }
    if first.after.status in TIMESTAMPS:
        values[TIMESTAMPS[first.after.status]] = first.after.updated_at
    if first.after.status is Status.CANCELLED:
        values |= {"cancellation_reason": first.reason, "cancelled_by": first.changed_by}
    session.execute(_REWRITE.values(values), {"ids": [move.after.id for move in moves]})


_REWRITE = update(reservations).where(reservations.c.id == any_(cast(bindparam("ids"), ARRAY(Uuid))))


def _give_back(session: Session, released: Sequence[Reservation]) -> None:
    """Return what was held to the items. Reservations are locked before items, always."""
    quantities: Counter[int] = Counter()
    for one in released:
        quantities[one.item_id] += one.quantity
    if quantities:
        items.lock(session, quantities)
        items.move(session, quantities)
