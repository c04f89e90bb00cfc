"""Rescheduling: giving a reservation another period or quantity. If it needs more, that is checked as a new one is."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from domain import items
from domain.calendars.most_in_use import most_in_use
from domain.calendars.occupancies import Occupancies, occupied_query, read_occupied
from domain.calendars.periods import Period
from domain.calendars.rules import blocked
from domain.items import Item
from domain.outbox import Routes
from domain.reservations.capacity import Book, Claim, book_of
from domain.reservations.expiry import expire_these, take_back
from domain.reservations.lifecycle import allows
from domain.reservations.table import Reservation
from domain.reservations.transition import Change
from domain.runtime.errors import Busy, Invalid, NotFree, Refusal, WrongStatus
from domain.runtime.pipeline import execute


def reschedule(session: Session, asked: Change, routes: Routes) -> Change | Refusal:
    """Lock the items of a locked reservation, and return the change with them, or why it is refused.

    What the reservation has now counts as free. Overdue holds in its way are expired. If it only gives time or units of
    calendars back, that is never refused, and no item is locked.
    """
    one = asked.of
    if not allows(one.status, None, asked.fields):
        return WrongStatus(one.status)
    if "quantity" in asked.fields and one.further_lines:
        return Invalid("quantity", "the reservation has several lines: cancel it, and reserve what is needed instead")
    if "starts_at" in asked.fields and one.period is None:
        return Invalid("start", f"{one.sku} is stock, which is not reserved for a period")
    after = replace(one, **asked.fields)
    if _gives_back(one, after):
        return asked
    by_id = {item.id: item for item in items.lock(session, [line.item_id for line in one.lines])}
    of: Sequence[Item] = [by_id[line.item_id] for line in one.lines]
    if after.period is None:
        of = _with_taken_back(session, one, after, of[0], routes)
    refused = _refuse(session, one, after, of, routes)
    return refused or replace(asked, items=of)


def _gives_back(one: Reservation, after: Reservation) -> bool:
    """Return whether a reservation of calendars is to be within its period, for no more units."""
    if one.period is None or after.period is None:
        return False
    return one.period.contains(after.period) and after.quantity <= one.quantity


def _with_taken_back(
    session: Session, one: Reservation, after: Reservation, item: Item, routes: Routes
) -> Sequence[Item]:
    """Expire overdue holds of stock if the reservation lacks units and could have them. Return its item after that."""
    lacking = after.quantity - one.quantity - item.available_quantity
    could_fit = after.quantity <= item.stock_quantity
    if lacking > 0 and could_fit and take_back(session, {item.id: lacking}, routes):
        return items.lock(session, [item.id])
    return [item]


def _refuse(
    session: Session, one: Reservation, after: Reservation, of: Sequence[Item], routes: Routes
) -> Refusal | None:
    """Return why the reservation does not fit as it is to be.

    Raises Busy if it is for a hold that has lapsed, and that another transaction changes just now.
    """
    claims = [Claim(line.item_id, line.quantity, after.period) for line in after.lines]
    books = _books(session, one, of, after.period, routes)
    refused = _first_refusal(claims, books)
    if refused is None and after.period is not None and any(book.is_partial for book in books):
        books = _added_up(session, one, of, after.period)
        refused = _first_refusal(claims, books)
    if refused is None and not all(book.fits(claim) for claim, book in zip(claims, books, strict=True)):
        raise Busy
    return refused


def _first_refusal(claims: Sequence[Claim], books: Sequence[Book]) -> Refusal | None:
    for claim, book in zip(claims, books, strict=True):
        if forbidden := book.forbids(claim):
            return forbidden
        possible = book.possible(claim, 0)
        if claim.quantity > possible:
            return book.refuse(claim, possible)
    return None


def _books(
    session: Session, one: Reservation, of: Sequence[Item], period: Period | None, routes: Routes
) -> Sequence[Book]:
    """Return what is free of each item if the reservation gave back what it has."""
    if period is None:
        item, line = of[0], one.lines[0]
        return [book_of(replace(item, available_quantity=item.available_quantity + line.quantity), ())]
    occupied, busy = _occupied_by_others(session, one, of, period)
    lapsed = {
        other.reservation_id
        for item in of
        for other in occupied.get(item.id, ())
        if other.is_lapsed and other.overlaps(blocked(item, period))
    }
    if expire_these(session, lapsed, routes):
        occupied, busy = _occupied_by_others(session, one, of, period)
    return [book_of(item, occupied.get(item.id, ()), {} if item.id in busy else None) for item in of]


def _occupied_by_others(
    session: Session, one: Reservation, of: Sequence[Item], period: Period
) -> tuple[Occupancies, Collection[int]]:
    """Return what others have taken of calendars, and those of which more is taken than was read."""
    query, limits = occupied_query((item.id, period) for item in of)
    (rows,) = execute(session, [query])
    found, busy = read_occupied(rows, limits)
    others = {
        item_id: [other for other in occupied if other.reservation_id != one.id] for item_id, occupied in found.items()
    }
    return others, busy


def _added_up(session: Session, one: Reservation, of: Sequence[Item], period: Period) -> Sequence[Book]:
    """Return what is free of busy calendars, by what others have in use at most."""
    times = [(item.id, blocked(item, period)) for item in of]
    each = zip(of, times, most_in_use(session, times, but=one.id), strict=True)
    return [book_of(item, (), {time: in_use}) for item, (_, time), in_use in each]


def taken_meanwhile(asked: Change) -> NotFree:
    """Return the refusal of a change that has its items, of which one of capacity 1 was found taken in the end."""
    after = replace(asked.of, **asked.fields)
    item = next(item for item in asked.items if item.capacity == 1)
    assert after.period is not None, "it is of calendars"
    return NotFree(item.sku, 1, 0, after.period.start, after.period.end)
