"""What `bin/why` prints of an item or a reservation: whether it could be reserved or changed, or what prevents that."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import rich_click as click
from sqlalchemy.orm import Session

from domain import calendars, reservations
from domain.calendars import Period
from domain.reservations import Claim, Reschedule
from domain.runtime.errors import HoldExpired, Invalid, NotFree, OutsideOpeningHours, Refusal, SoldOut, WrongStatus
from domain.runtime.logs import printable
from worker.commands.output import instant, print_json, print_wrapped, rows
from worker.commands.runner import opened

MEMBERS = (
    "with --item or another time or quantity: item or reservation_id, quantity and refusal; the refusal is null, or has"
    " a kind (not_free, outside_opening_hours, sold_out, wrong_status, hold_expired or invalid) and of"
    " available_quantity, conflicts, alternatives, time_zone, opening_hours, status, expired_at, field and reason those"
    " that this kind has."
)

KINDS = {
    NotFree: "not_free",
    OutsideOpeningHours: "outside_opening_hours",
    SoldOut: "sold_out",
    WrongStatus: "wrong_status",
    HoldExpired: "hold_expired",
}

NOTHING = "Nothing was explained."


class Wanted(NamedTuple):
    """For when it is wanted, and how many units. None is what it has now or, for an item, 1."""

    start: datetime | None
    end: datetime | None
    quantity: int | None

    @property
    def period(self) -> Period | None:
        """The period. Raises Invalid."""
        return Period(self.start, self.end) if self.start and self.end else None


def explain_item(sku: str, wanted: Wanted, *, as_json: bool) -> None:
    """Print why units of an item can't be reserved now, or that they can. Raises UnknownItem, Invalid."""
    quantity = wanted.quantity or 1
    with opened(NOTHING) as (db, _), db.begin() as session:
        refused = reservations.refusal_of(session, Claim(sku, quantity, wanted.period))
        _add_explanation(session, refused)
    if as_json:
        print_json(item=sku, quantity=quantity, refusal=refused and _members(refused))
    else:
        _print(refused, f"{rows(quantity, 'unit')} of {sku} can be reserved now.", quantity)


def explain_change(reservation_id: UUID, wanted: Wanted, *, as_json: bool) -> None:
    """Print why a reservation can't have another time or quantity now, or that it can.

    Raises UnknownReservation, Invalid.
    """
    change = Reschedule(wanted.period, wanted.quantity)
    with opened(NOTHING) as (db, routes), db.begin() as session:
        refused = reservations.refusal_of_change(session, reservation_id, change, routes)
        quantity = wanted.quantity or reservations.get(session, reservation_id).quantity
        _add_explanation(session, refused, but=reservation_id)
    if as_json:
        print_json(reservation_id=reservation_id, quantity=quantity, refusal=refused and _members(refused))
    else:
        _print(refused, "The reservation can be changed so now.", quantity)


def _add_explanation(session: Session, refused: Refusal | None, *, but: UUID | None = None) -> None:
    if isinstance(refused, NotFree):
        refused.conflicts, refused.alternatives = calendars.explain(session, refused, but=but)


def _members(refused: Refusal) -> Mapping[str, Any]:
    facts = {name: value for name, value in vars(refused).items() if value is not None}
    for name in facts.keys() & {"conflicts", "alternatives"}:
        facts[name] = [one._asdict() for one in facts[name]]
    return {"kind": KINDS.get(type(refused), "invalid")} | facts


def _print(refused: Refusal | None, possible: str, quantity: int) -> None:
    match refused:
        case None:
            _print_line(possible)
        case OutsideOpeningHours(sku=sku, time_zone=zone, opening_hours=hours):
            _print_line(f"{sku} is closed for some of that time. It is open, by the time of {zone}:")
            for day, spans in hours.items():
                _print_line(f"{day}: {', '.join(spans) or 'not at all'}", "  ")
        case NotFree():
            _print_not_free(refused)
        case _:
            _print_line(_describe(refused, quantity))


def _describe(refused: Refusal, quantity: int) -> str:
    match refused:
        case WrongStatus(status=status):
            return f"The reservation is {status}, and a reservation of this status can't be changed so."
        case HoldExpired(expired_at=moment):
            return f"The hold expired at {instant(moment)}. Make a new reservation."
        case SoldOut(sku=sku, available_quantity=available):
            return f"Sold out: {rows(available, 'unit')} of {sku} available, {quantity} wanted."
        case Invalid(field, reason):
            return f"This is never accepted: {field}: {reason}."
        case _:
            return f"This is refused: {type(refused).__name__}."


def _print_not_free(refused: NotFree) -> None:
    free = rows(refused.available_quantity, "unit")
    _print_line(f"Not free: {free} of {refused.sku} free throughout, {refused.asked} wanted. In the way:")
    for one in refused.conflicts or ():
        lapses = f"; a hold, which lapses at {instant(one.lapses_at)}" if one.lapses_at else ""
        taken = f"{rows(one.quantity, 'unit')} from {instant(one.start)} until {instant(one.end)}, buffers included"
        _print_line(f"{taken}{lapses}", "  ")
    if refused.alternatives:
        click.echo("Free instead:")
    for other in refused.alternatives or ():
        free = f"{rows(other.quantity, 'unit')} of {other.sku} from {instant(other.start)} until {instant(other.end)}"
        _print_line(free, "  ")


def _print_line(text: str, indent: str = "") -> None:
    """Print a text of which a sku is a part, and a sku may have any characters."""
    print_wrapped(printable(text), indent)
