"""Reading one booking, with its guest."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from litestar import Request
from sqlalchemy.orm import Session

from api.bookings.schemas import BookingView
from api.bulkheads import ClientBulkhead
from api.http.headers import principal_of
from api.personal_data import personal_data_of
from api.reservations.guests import opened_guest, read_guest
from domain import bookings
from domain.access import Principal, Reach
from domain.bookings import Booking
from domain.privacy import SealedGuest
from domain.reservations import Reservation
from domain.runtime.errors import GuestForgotten, UnknownGuest, UnknownReservation

#: Finds a reservation in a session.
Find = Callable[[Session], Reservation]


@dataclass(frozen=True, slots=True)
class Found:
    """A booking, with its guest, who is still encrypted."""

    reservation: Reservation
    booking: Booking
    guest: SealedGuest | None


async def shown(request: Request[Any, Any, Any], reads: ClientBulkhead, find: Find, reach: Reach) -> BookingView:
    """Return a booking with its guest. Only those to whom the venue belongs see the internal notes.

    That the guest was read is recorded. Raises UnknownReservation and what `find` raises.
    """
    principal = principal_of(request.scope)
    found = await reads.run(lambda session: _find(session, find, principal))
    view = BookingView.of(found.reservation, found.booking)
    if reach.covers(venue=found.reservation.venue, provider=found.reservation.provider):
        view.internal_notes = found.booking.internal_notes
    sealed = found.guest
    if sealed is not None:
        opened = partial(opened_guest, sealed=sealed, reservation_id=found.reservation.id)
        person = await personal_data_of(request.app.state).run(opened, principal)
        view.guest_name, view.guest_email = person.name, person.email
        view.guest_phone, view.special_requests = person.telephone, person.special_requests
    return view


def booking_of(session: Session, one: Reservation) -> Booking:
    """Return the booking of a reservation. Raises UnknownReservation if it is none."""
    found = bookings.read(session, [one.id]).get(one.id)
    if found is None:
        raise UnknownReservation(one.id)
    return found


def _find(session: Session, find: Find, principal: Principal) -> Found:
    one = find(session)
    booking = booking_of(session, one)
    try:
        return Found(one, booking, read_guest(session, one.id, principal))
    except (UnknownGuest, GuestForgotten):
        return Found(one, booking, None)
