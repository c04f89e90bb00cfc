"""The beginning of a booking: its reference, its list price, and its first step."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.bookings import saga
from domain.bookings.prices import Source, list_price
from domain.bookings.references import new_reference
from domain.bookings.table import Booking
from domain.calendars import Period
from domain.calendars.zones import zone_of
from domain.items import Item
from domain.outbox import Routes
from domain.runtime.errors import CalendarChanged, Invalid, Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBooking:
    """What the request for a booking has beside that for a reservation.

    Its period was found on the clock of `time_zone`, which is that of the calendar of `venue`. Without a `venue_name`
    it has the name of that calendar.
    """

    venue: str
    time_zone: str

    venue_type: str | None = None
    venue_name: str | None = None
    internal_notes: str | None = None


def refuse(asked: NewBooking, calendar: Item, quantity: int, period: Period, moment: datetime) -> Refusal | None:
    """Return why a booking can't be made whatever is free, or None."""
    if (calendar.venue, calendar.time_zone) != (asked.venue, asked.time_zone):
        return CalendarChanged(calendar.sku)
    if period.start < moment:
        return Invalid("booking_date", "it is in the past, or its booking_time is")
    try:
        list_price(calendar, quantity, period)
    except Invalid as error:
        return error
    return None


def begin(
    asked: NewBooking, reservation_id: UUID, calendar: Item, quantity: int, period: Period | None, routes: Routes
) -> tuple[str, Booking]:
    """Return the reference of a new booking, and the booking as it is when its first step is asked for.

    Until the pricing service has answered, its price is the list price.
    """
    assert period and calendar.time_zone, "it is of a calendar"
    price = list_price(calendar, quantity, period)
    booking = Booking(
        reservation_id=reservation_id,
        venue_type=asked.venue_type,
        venue_name=asked.venue_name or calendar.name,
        time_zone=calendar.time_zone,
        internal_notes=asked.internal_notes,
        price=price,
        price_source=None if price is None else Source.DEFAULT,
    )
    first = saga.forward(booking, saga.wanted_steps(routes))
    return new_reference(period.start, zone_of(calendar.time_zone)), saga.after(booking, first)
