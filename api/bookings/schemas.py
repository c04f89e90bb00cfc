"""The shapes of bookings, by the names of the booking contract.

Source: 1-booking-lifecycle.md, "Booking Entity".
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, Self
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw, UnsetType

from api.bookings.fields import ClockTime, InternalNotes, VenueId, VenueName, VenueType
from api.bookings.times import Placed, shown
from api.http.fields import Sku
from api.reservations.metadata import NONE, Metadata
from api.reservations.people import Email, Name, SpecialRequests, Telephone
from api.reservations.schemas import GuestId, Quantity, Version
from domain.bookings import AMOUNTS, Booking, Source, State
from domain.bookings.prices import Price
from domain.calendars import Explanation
from domain.calendars.zones import zone_of
from domain.reservations import Reservation
from domain.reservations.history import HistoryEntry
from domain.reservations.lifecycle import Status
from domain.runtime import errors


class BookingView(msgspec.Struct, kw_only=True):
    """A booking. `booking_date`, `booking_time` and `end_time` are what the clock of the venue shows.

    `booking_time_moved_from` is the time that was asked for if the clock skips it, as when it is put forward in spring.
    Amounts are in `currency`; they are null until the price is known. `price_source` is `quoted`, by the pricing
    service, or `default`, which is the list price. It is guaranteed until `price_guaranteed_until` while the booking is
    PENDING, and then as long as it lasts.
    """

    id: UUID
    booking_reference: str
    guest_id: GuestId | None
    venue_id: VenueId | None
    venue_type: VenueType | None
    venue_name: VenueName
    booking_date: date
    booking_time: ClockTime
    booking_time_moved_from: ClockTime | None
    duration_minutes: int
    end_time: ClockTime
    start: datetime
    end: datetime
    time_zone: str
    party_size: Quantity
    status: Status
    version: Version
    base_price: str | None
    tax_amount: str | None
    discount_amount: str | None
    total_price: str | None
    currency: str | None
    price_source: Source | None
    price_guaranteed_until: datetime | None
    payment_intent_id: str | None
    payment_status: str
    inventory_reservation_id: str | None
    inventory_item_id: Sku
    source: str
    metadata: Metadata
    cancellation_reason: str | None
    cancelled_by: str | None
    created_at: datetime
    updated_at: datetime
    confirmed_at: datetime | None
    cancelled_at: datetime | None
    checked_in_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None
    internal_notes: InternalNotes | UnsetType | None = UNSET
    guest_name: Name | UnsetType | None = UNSET
    guest_email: Email | UnsetType | None = UNSET
    guest_phone: Telephone | UnsetType | None = UNSET
    special_requests: SpecialRequests | UnsetType | None = UNSET

    @classmethod
    def of(cls, one: Reservation, booking: Booking, *, moved_from: time | None = None) -> Self:
        assert one.period and one.booking_reference, "it is a booking"
        zone = zone_of(booking.time_zone)
        start, end = shown(one.period.start, zone), shown(one.period.end, zone)
        return cls(
            id=one.id,
            booking_reference=one.booking_reference,
            guest_id=one.guest_id,
            venue_id=one.venue,
            venue_type=booking.venue_type,
            venue_name=booking.venue_name,
            booking_date=start.date(),
            booking_time=start.time().isoformat(),
            booking_time_moved_from=None if moved_from is None else moved_from.isoformat(),
            duration_minutes=int(one.period.duration.total_seconds()) // 60,
            end_time=end.time().isoformat(),
            start=one.period.start,
            end=one.period.end,
            time_zone=booking.time_zone,
            party_size=one.quantity,
            status=one.status,
            version=one.version,
            **_amounts(booking.price),
            price_source=booking.price_source,
            price_guaranteed_until=one.held_until if booking.price else None,
            payment_intent_id=booking.payment_intent_id,
            payment_status=PAYMENT_STATUSES[booking.payment],
            inventory_reservation_id=booking.inventory_reservation_id,
            inventory_item_id=one.sku,
            source=one.source,
            metadata=NONE if one.metadata is None else Raw(one.metadata),
            cancellation_reason=one.cancellation_reason,
            cancelled_by=one.cancelled_by,
            created_at=one.created_at,
            updated_at=one.updated_at,
            confirmed_at=one.confirmed_at,
            cancelled_at=one.cancelled_at,
            checked_in_at=one.checked_in_at,
            completed_at=one.completed_at,
            expires_at=one.expires_at,
        )

    def rendered(self) -> str:
        """Return it as JSON."""
        return msgspec.json.encode(self).decode()


class BookingPage(msgspec.Struct):
    """Bookings, without personal data. If there is a `next_cursor`, there may be more: send it back as `cursor`.

    A page may have fewer bookings than `limit`, even none, and a `next_cursor`.
    """

    bookings: list[BookingView]
    next_cursor: str | None


class Alternative(msgspec.Struct):
    """What is free instead: for so many people, from `start` until `end`."""

    inventory_item_id: Sku
    booking_date: date
    booking_time: ClockTime
    start: datetime
    end: datetime
    party_size: int


class Availability(msgspec.Struct, kw_only=True):
    """Whether there is room. `available_capacity` is for how many people, at least, at every moment of the time.

    The price is the list price, if there is one; the pricing service is asked when the booking is made. If there is no
    room, the `alternatives` are free.
    """

    available: bool
    available_capacity: int
    start: datetime
    end: datetime
    booking_time_moved_from: ClockTime | None
    total_price: str | None
    currency: str | None
    price_source: Source | None
    alternatives: list[Alternative]

    @classmethod
    def of(
        cls,
        when: Placed,
        free: int,
        party_size: int,
        price: Price | None,
        explanation: Explanation | None,
        time_zone: str,
    ) -> Self:
        found = explanation.alternatives if explanation else ()
        return cls(
            available=free >= party_size,
            available_capacity=free,
            start=when.period.start,
            end=when.period.end,
            booking_time_moved_from=None if when.moved_from is None else when.moved_from.isoformat(),
            total_price=None if price is None else str(price.total),
            currency=None if price is None else price.currency,
            price_source=Source.DEFAULT if price else None,
            alternatives=[_alternative(one, time_zone) for one in found],
        )


def _alternative(one: errors.Alternative, time_zone: str) -> Alternative:
    start = shown(one.start, zone_of(time_zone))
    return Alternative(one.sku, start.date(), start.time().isoformat(), one.start, one.end, one.quantity)


class BookingChangeView(msgspec.Struct):
    """One change of a booking. The first one, of the making, has no `from_status`; a change of fields keeps it."""

    from_status: Status | None
    to_status: Status
    changed_by: str
    reason: str | None
    created_at: datetime


class BookingHistory(msgspec.Struct):
    """The changes of a booking, the oldest first."""

    booking_id: UUID
    history: list[BookingChangeView]

    @classmethod
    def of(cls, booking_id: UUID, entries: Sequence[HistoryEntry]) -> Self:
        return cls(booking_id, [msgspec.convert(one._asdict(), BookingChangeView) for one in entries])


#: What the contract calls the states of the payment.
PAYMENT_STATUSES: Mapping[State | None, str] = {
    None: "NONE",
    State.ASKED: "PENDING",
    State.DONE: "PAID",
    State.AGAIN: "CHANGE_PENDING",
    State.REFUSED: "REFUSED",
    State.UNKNOWN: "UNKNOWN",
    State.UNDOING: "REFUND_PENDING",
    State.UNDONE: "REFUNDED",
    State.NOT_UNDONE: "REFUND_FAILED",
}


def _amounts(price: Price | None) -> dict[str, Any]:
    if price is None:
        return dict.fromkeys((*AMOUNTS, "currency"))
    return {**{name: str(amount) for name, amount in price.amounts.items()}, "currency": price.currency}
