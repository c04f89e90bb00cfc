"""What follows outside from changes of bookings: services undo what they did, or are asked about other terms."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from domain import bookings, items
from domain.bookings import Booking, saga, terms
from domain.bookings.saga import Ask, Step
from domain.bookings.terms import Terms
from domain.outbox import Event, Routes
from domain.reservations import events
from domain.reservations.lifecycle import Status
from domain.reservations.table import Reservation

Headers = Mapping[str, str]


def undo(session: Session, over: Sequence[tuple[Reservation, Headers]]) -> Sequence[Event]:
    """Return the events that ask to undo the last step of bookings that are over, each with these headers.

    The bookings are written as they are then. A booking of which a step is asked for, or undone, at this time has no
    such event: the answer leads to it.
    """
    if not over:
        return ()
    found, changed = [], []
    known = bookings.read(session, [one.id for one, _ in over])
    for reservation, headers in over:
        if step := saga.back(known[reservation.id]):
            changed.append(saga.after(known[reservation.id], step))
            found.append(events.of_next(reservation, changed[-1], step, headers))
    bookings.write(session, changed)
    return found


def renew(
    session: Session, changed: Sequence[tuple[Reservation, Reservation, Headers]], routes: Routes
) -> Sequence[Event]:
    """Return the events that ask services about bookings with another time or party, as they were and as they are.

    The bookings are written as they are then.
    """
    if not changed:
        return ()
    known = bookings.read(session, [after.id for _, after, _ in changed])
    calendars = {one.id: one for one in items.named(session, [after.item_id for _, after, _ in changed])}
    found, renewed = [], []
    for before, after, headers in changed:
        assert before.period and after.period, "it is of a calendar"
        booking = known[after.id]
        former = Terms(before.period, before.quantity, booking.price, booking.price_source)
        booking = terms.renew(booking, former, calendars[after.item_id], after.period, after.quantity, after.version)
        asked = next_of(after, booking, saga.wanted_steps(routes))
        renewed.append(agreed(saga.after(booking, asked)))
        if isinstance(asked, Ask):
            found.append(events.of_next(after, booking, asked, headers))
    bookings.write(session, renewed)
    return found


def next_of(reservation: Reservation, booking: Booking, wanted: Sequence[Step]) -> saga.Next | None:
    """Return what comes next as long as a booking is kept. Only a hold is still to be confirmed."""
    if reservation.status is Status.PENDING:
        return saga.forward(booking, wanted)
    found = saga.forward(booking, [step for step in wanted if step is not Step.CONFIRMATION])
    return None if isinstance(found, saga.Confirm) else found


def agreed(booking: Booking) -> Booking:
    """Return a booking that has no former terms any more, if all services have agreed to the present ones."""
    return replace(booking, former_terms=None) if saga.is_agreed(booking) else booking
