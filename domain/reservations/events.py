"""The events of a reservation, by the names and in the terms of the booking contract."""

from collections.abc import Collection, Mapping
from typing import Any

from domain.bookings import Booking, saga
from domain.bookings.saga import Ask, Undo
from domain.calendars.periods import Period
from domain.outbox.record import Event
from domain.reservations.lifecycle import Status
from domain.reservations.table import Reservation

CREATED = "booking.created"
STATUS_CHANGED = "booking.status_changed"
EXTENDED = "booking.extended"
UPDATED = "booking.updated"

#: Asks the confirmation service to confirm a hold, and to release what it may have confirmed.
RESERVATION_CONFIRM = "reservation_confirm"
RESERVATION_RELEASE = "reservation_release"

#: Tells that a booking whose payment was taken has got it back.
REFUNDED = "booking.refunded"

#: The event that each status has beside `booking.status_changed`.
OWN_EVENT = {
    Status.CONFIRMED: "booking.confirmed",
    Status.CANCELLED: "booking.cancelled",
    Status.EXPIRED: "booking.expired",
    Status.CHECKED_IN: "booking.checked_in",
    Status.COMPLETED: "booking.completed",
    Status.REJECTED: "booking.rejected",
    Status.NO_SHOW: "booking.no_show",
}

#: What bookings of slots have beside that, in the terms of the slot contract: the event of each status.
SLOT_EVENTS = "slot_booking."
SLOT_EVENT = {
    Status.PENDING: f"{SLOT_EVENTS}created",
    Status.CONFIRMED: f"{SLOT_EVENTS}confirmed",
    Status.REJECTED: f"{SLOT_EVENTS}rejected",
    Status.CANCELLED: f"{SLOT_EVENTS}cancelled",
    Status.EXPIRED: f"{SLOT_EVENTS}expired",
}

#: The members of events whose columns have other names.
WIRE_NAMES = {"starts_at": "start", "ends_at": "end"}


def of_creation(reservation: Reservation, headers: dict[str, str]) -> list[Event]:
    """Return the events of a new reservation: that it was made and, of a hold, the request to have it confirmed.

    Of a booking, the first of its steps is asked for instead. Of a slot, the provider decides.
    """
    payload = _facts(reservation)
    if booking := reservation.booking:
        asked = [of_next(reservation, booking, Ask(step), headers) for step in saga.asked(booking)]
        return [Event(CREATED, reservation.id, payload, headers), *asked]
    if slot := reservation.slot:
        return [Event(CREATED, reservation.id, payload, headers), *of_slot(reservation, slot, None, headers)]
    names = (CREATED, RESERVATION_CONFIRM) if reservation.status is Status.PENDING else (CREATED,)
    return [Event(name, reservation.id, payload, headers) for name in names]


def of_next(reservation: Reservation, booking: Booking, found: Ask | Undo, headers: Mapping[str, str]) -> Event:
    """Return the event that asks for the next step of a booking, or to undo one. It has what the service needs."""
    event_type = saga.ASKS[found.step] if isinstance(found, Ask) else saga.UNDOES[found.step]
    payload = _facts(reservation)
    if event_type != RESERVATION_CONFIRM:
        payload |= _terms(booking)
    return Event(event_type, reservation.id, payload, headers)


def of_refund(reservation: Reservation, booking: Booking, headers: Mapping[str, str]) -> Event:
    """Return the event that tells that a booking has got its payment back."""
    return Event(REFUNDED, reservation.id, _facts(reservation) | _terms(booking), headers)


def _terms(booking: Booking) -> dict[str, Any]:
    """Return what the services of a booking are sent beside the facts of its reservation."""
    return {
        "amount": None if booking.price is None else str(booking.price.total),
        "currency": booking.price and booking.price.currency,
        "inventory_reservation_id": booking.inventory_reservation_id,
        "payment_intent_id": booking.payment_intent_id,
    }


def of_status(
    reservation: Reservation, from_status: Status, reason: str | None, headers: Mapping[str, str]
) -> list[Event]:
    """Return the events of a change from `from_status` to the status that the reservation has now."""
    change = {"from_status": from_status, "to_status": reservation.status, "reason": reason}
    payload = _facts(reservation) | change
    names = (STATUS_CHANGED, OWN_EVENT[reservation.status])
    return [Event(name, reservation.id, payload, headers) for name in names]


def of_slot(reservation: Reservation, slot: Period, reason: str | None, headers: Mapping[str, str]) -> list[Event]:
    """Return the event of the slot contract that belongs to the status of a reservation, if there is one."""
    if reservation.status not in SLOT_EVENT:
        return []
    its_own = {
        "provider_id": reservation.provider,
        "start": slot.start.isoformat(),
        "end": slot.end.isoformat(),
        "reason": reason,
    }
    return [Event(SLOT_EVENT[reservation.status], reservation.id, _facts(reservation) | its_own, headers)]


def of_fields(
    reservation: Reservation, before: Reservation, names: Collection[str], headers: Mapping[str, str]
) -> list[Event]:
    """Return the events of a change of these fields. They do not have what people have written, such as a note."""
    found = []
    if "expires_at" in names:
        assert before.expires_at is not None, "only a hold is extended"
        extension = {"previous_expires_at": before.expires_at.isoformat()}
        found.append(Event(EXTENDED, reservation.id, _facts(reservation) | extension, headers))
    if others := [name for name in names if name != "expires_at"]:
        changed = [WIRE_NAMES.get(name, name) for name in others]
        found.append(Event(UPDATED, reservation.id, _facts(reservation) | {"changed": changed}, headers))
    return found


def release(reservation: Reservation, headers: Mapping[str, str]) -> Event:
    """Return the request that the confirmation service release what it may have confirmed."""
    return Event(RESERVATION_RELEASE, reservation.id, _facts(reservation), headers)


def _facts(reservation: Reservation) -> dict[str, Any]:
    if reservation.booking_reference is None:
        return _plain_facts(reservation)
    its_own = {"booking_reference": reservation.booking_reference, "venue_id": reservation.venue}
    return _plain_facts(reservation) | its_own


def _plain_facts(reservation: Reservation) -> dict[str, Any]:
    one = reservation
    lines = [{"item_id": one.item_id, "sku": one.sku, "quantity": one.quantity}]
    lines += [{"item_id": line.item_id, "sku": line.sku, "quantity": line.quantity} for line in one.further_lines]
    return {
        "booking_id": str(reservation.id),
        "item_id": reservation.item_id,
        "sku": reservation.sku,
        "quantity": reservation.quantity,
        "lines": lines,
        "status": reservation.status,
        "version": reservation.version,
        "guest_id": reservation.guest_id,
        "expires_at": reservation.expires_at and reservation.expires_at.isoformat(),
        "start": reservation.starts_at and reservation.starts_at.isoformat(),
        "end": reservation.ends_at and reservation.ends_at.isoformat(),
    }
