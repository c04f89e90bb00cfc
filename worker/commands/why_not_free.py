"""What `bin/why --item` prints: whether an item could be reserved now, and what is in the way."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import rich_click as click
from sqlalchemy.orm import Session

from domain import calendars, reservations
from domain.calendars import Period
from domain.reservations import Claim
from domain.runtime.errors import NotFree, OutsideOpeningHours, Refusal, SoldOut
from worker.commands.output import instant, print_json, print_wrapped, rows

MEMBERS = (
    "with --item: item, start, end, quantity and refusal; the refusal is null, or has a kind (not_free,"
    " outside_opening_hours, sold_out or invalid) and of available_quantity, conflicts, alternatives, time_zone,"
    " opening_hours, field and reason those that this kind has."
)

KINDS = {NotFree: "not_free", OutsideOpeningHours: "outside_opening_hours", SoldOut: "sold_out"}


def find(session: Session, sku: str, start: datetime | None, end: datetime | None, quantity: int) -> Refusal | None:
    """Return why units of an item can't be reserved now, with an explanation, or None if they can.

    Raises UnknownItem, Invalid.
    """
    period = Period(start, end) if start and end else None
    refused = reservations.refusal_of(session, Claim(sku, quantity, period))
    if isinstance(refused, NotFree):
        refused.conflicts, refused.alternatives = calendars.explain(session, refused)
    return refused


def show(refused: Refusal | None, sku: str, quantity: int, *, as_json: bool) -> None:
    if as_json:
        print_json(item=sku, quantity=quantity, refusal=None if refused is None else _members(refused))
    else:
        _print(refused, sku, quantity)


def _members(refused: Refusal) -> Mapping[str, Any]:
    facts = {name: value for name, value in vars(refused).items() if value is not None}
    for name in facts.keys() & {"conflicts", "alternatives"}:
        facts[name] = [one._asdict() for one in facts[name]]
    return {"kind": KINDS.get(type(refused), "invalid")} | facts


def _print(refused: Refusal | None, sku: str, quantity: int) -> None:
    match refused:
        case None:
            print_wrapped(f"{rows(quantity, 'unit')} of {sku} can be reserved now.")
        case SoldOut(available_quantity=available):
            print_wrapped(f"Sold out: {rows(available, 'unit')} of {sku} available, {quantity} wanted.")
        case OutsideOpeningHours(time_zone=zone, opening_hours=hours):
            print_wrapped(f"{sku} is closed for some of that time. It is open, by the time of {zone}:")
            for day, spans in hours.items():
                print_wrapped(f"{day}: {', '.join(spans) or 'not at all'}", "  ")
        case NotFree():
            _print_not_free(refused)
        case _:
            print_wrapped(f"This is never accepted: {refused}")


def _print_not_free(refused: NotFree) -> None:
    free = rows(refused.available_quantity, "unit")
    print_wrapped(f"Not free: {free} of {refused.sku} free throughout, {refused.asked} wanted. In the way:")
    for one in refused.conflicts or ():
        lapses = f"; a hold, which lapses at {instant(one.lapses_at)}" if one.lapses_at else ""
        taken = f"{rows(one.quantity, 'unit')} from {instant(one.start)} until {instant(one.end)}, buffers included"
        print_wrapped(f"{taken}{lapses}", "  ")
    if refused.alternatives:
        click.echo("Free instead:")
    for other in refused.alternatives or ():
        free = f"{rows(other.quantity, 'unit')} of {other.sku} from {instant(other.start)} until {instant(other.end)}"
        print_wrapped(free, "  ")
