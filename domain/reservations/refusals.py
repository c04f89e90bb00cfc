"""Refusals without a request: whether one would be refused by now, and why. For operators."""

from uuid import UUID

from sqlalchemy.orm import Session

from domain import items
from domain.calendars.most_in_use import most_in_use
from domain.calendars.occupancies import occupied_query, read_occupied
from domain.calendars.periods import Period
from domain.calendars.rules import blocked
from domain.items import Item
from domain.outbox import Routes
from domain.reservations.capacity import Book, Claim, book_of
from domain.reservations.changes import Reschedule, change
from domain.reservations.expiry import overdue_units
from domain.runtime.errors import Refusal
from domain.runtime.pipeline import execute


def refusal_of(session: Session, claim: Claim) -> Refusal | None:
    """Return why a claim would be refused, or None if it would be accepted. It locks nothing. Raises UnknownItem.

    What overdue holds keep counts as free.
    """
    item = items.get(session, claim.item)
    book = book_of(item, ()) if claim.period is None else _book_of_time(session, item, claim.period)
    if forbidden := book.forbids(claim):
        return forbidden
    overdue = overdue_units(session, [item.id], None) if claim.period is None else {}
    possible = book.possible(claim, overdue.get(item.id, 0))
    return book.refuse(claim, possible) if claim.quantity > possible else None


def _book_of_time(session: Session, item: Item, period: Period) -> Book:
    """Return the book of an item that is to be reserved for a period, whether or not it is a calendar."""
    query, limits = occupied_query([(item.id, period)])
    (rows,) = execute(session, [query])
    occupied, busy = read_occupied(rows, limits)
    found = occupied.get(item.id, ())
    if not busy:
        return book_of(item, found)
    time = blocked(item, period)
    (in_use,) = most_in_use(session, [(item.id, time)])
    return book_of(item, found, {time: in_use})


def refusal_of_change(session: Session, reservation_id: UUID, wanted: Reschedule, routes: Routes) -> Refusal | None:
    """Return why a change of a reservation would be refused, or None if it would be made.

    The change is tried and undone, so that its locks are held for a moment. Raises UnknownReservation, Busy.
    """
    trial = session.begin_nested()
    try:
        outcome = change(session, reservation_id, wanted, routes=routes)
    finally:
        trial.rollback()
    return outcome if isinstance(outcome, Refusal) else None
