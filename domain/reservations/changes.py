"""What may be asked of one reservation: another status, a longer hold, or new values of its fields."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from domain import items
from domain.access import EVERYTHING, Reach
from domain.calendars.periods import Period
from domain.calendars.table import TIME_IS_EXCLUSIVE
from domain.outbox import Routes
from domain.reservations.lifecycle import Status
from domain.reservations.ownership import is_within
from domain.reservations.reschedule import reschedule, taken_meanwhile
from domain.reservations.table import Reservation
from domain.reservations.transition import SYSTEM, Change, is_overdue, lock, transition
from domain.runtime.database import now
from domain.runtime.database_errors import constraint_of
from domain.runtime.errors import Invalid, Refusal, StaleVersion, UnknownReservation


@dataclass(frozen=True, slots=True)
class Extension:
    """The hold is to last for at least this long from now on. It never becomes shorter."""

    hold_for: timedelta


@dataclass(frozen=True, slots=True)
class Amendment:
    """These fields are to have these values, and the status is to be `to`, if that is given."""

    fields: Mapping[str, Any]
    to: Status | None = None


@dataclass(frozen=True, slots=True)
class Reschedule:
    """It is to be for another period, for another quantity, or for both. What is None stays as it is.

    The caller changes the fields `elsewhere` in the same transaction.
    """

    period: Period | None = None
    quantity: int | None = None
    elsewhere: Sequence[str] = ()


Wanted = Status | Extension | Amendment | Reschedule


def change(
    session: Session,
    reservation_id: UUID,
    wanted: Wanted,
    *,
    reason: str | None = None,
    changed_by: str = SYSTEM,
    precondition: Callable[[Reservation], None] | None = None,
    expected_version: int | None = None,
    is_repeatable: bool = True,
    headers: Mapping[str, str] | None = None,
    reach: Reach = EVERYTHING,
    routes: Routes,
) -> Reservation | Refusal:
    """Lock one reservation and change it as is wanted. Raises UnknownReservation, StaleVersion, Busy.

    One that is out of `reach` is unknown.

    A reservation that is so already is returned as it is, if the change `is_repeatable`: whoever lost the first answer
    asks again, with the version from before. Otherwise `precondition` is called with the reservation and may raise a
    refusal, and an expected version must be the current one. For the answer see `transition`.
    """
    locked = [one for one in lock(session, [reservation_id]) if is_within(one, reach)]
    if not locked:
        raise UnknownReservation(reservation_id)
    (one,) = locked
    moment = now(session)
    if is_repeatable and _is_so(one, wanted, moment):
        return one
    # A hold that has lapsed is refused as such, whatever version is named: its version depends on maintenance.
    if not _has_lapsed(one, moment):
        _require(one, precondition, expected_version)
    asked = Change(
        of=one,
        to=_to(one, wanted),
        fields=_fields(one, wanted, moment),
        reason=reason,
        changed_by=changed_by,
        headers=headers or {},
        elsewhere=_elsewhere(wanted),
    )
    if isinstance(wanted, Extension) and _is_of_slot(session, one):
        return Invalid("ttl_seconds", "a booking of a slot is pending until the slot begins, and no longer")
    if isinstance(wanted, Reschedule) and not _has_lapsed(one, moment):
        return _reschedule(session, asked, routes, moment)
    return transition(session, [asked], routes, moment)[0]


def _is_of_slot(session: Session, one: Reservation) -> bool:
    return one.period is None and items.get(session, one.item_id).slot_starts_at is not None


def _reschedule(session: Session, asked: Change, routes: Routes, moment: datetime) -> Reservation | Refusal:
    found = reschedule(session, asked, routes)
    if isinstance(found, Refusal):
        return found
    try:
        with session.begin_nested():
            return transition(session, [found], routes, moment)[0]
    except IntegrityError as error:
        if constraint_of(error) != TIME_IS_EXCLUSIVE:
            raise
        # Somebody took the time meanwhile who has not locked the calendar.
        return taken_meanwhile(found)


def _is_so(one: Reservation, wanted: Wanted, moment: datetime) -> bool:
    match wanted:
        case Status():
            return one.status is wanted
        case Extension(hold_for):
            # A hold without an end lasts for longer than any.
            return one.status is Status.PENDING and (one.expires_at is None or one.expires_at >= moment + hold_for)
        case Amendment() | Reschedule():
            is_same = not _fields(one, wanted, moment) and _to(one, wanted) is None and not _elsewhere(wanted)
            return is_same and not _has_lapsed(one, moment)


def _elsewhere(wanted: Wanted) -> Sequence[str]:
    return wanted.elsewhere if isinstance(wanted, Reschedule) else ()


def _has_lapsed(one: Reservation, moment: datetime) -> bool:
    """Return whether a reservation is a hold that was not confirmed in time, seen by maintenance or not."""
    return one.status is Status.EXPIRED or is_overdue(one, moment)


def _require(
    one: Reservation, precondition: Callable[[Reservation], None] | None, expected_version: int | None
) -> None:
    if precondition is not None:
        precondition(one)
    if expected_version is not None and expected_version != one.version:
        raise StaleVersion(expected_version, one.version)


def _to(one: Reservation, wanted: Wanted) -> Status | None:
    """Return the new status, or None if it is to stay as it is."""
    match wanted:
        case Status():
            return wanted
        case Amendment(to=to):
            return None if to is one.status else to
        case _:
            return None


def _fields(one: Reservation, wanted: Wanted, moment: datetime) -> Mapping[str, Any]:
    """Return the fields that are to change, with their new values."""
    match wanted:
        case Status():
            return {}
        case Extension(hold_for):
            return {"expires_at": moment + hold_for}
        case Amendment(fields):
            return _differing(one, fields)
        case Reschedule(period=period, quantity=quantity):
            times = {"starts_at": period.start, "ends_at": period.end} if period else {}
            return _differing(one, times | ({"quantity": quantity} if quantity else {}))


def _differing(one: Reservation, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in fields.items() if value != getattr(one, name)}
