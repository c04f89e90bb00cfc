"""The events of a reservation, by the names and in the terms of the booking contract."""

from collections.abc import Collection, Mapping
from typing import Any

from domain.outbox.record import Event
from domain.reservations.lifecycle import Status
from domain.reservations.table import Reservation

CREATED = "booking.created"
STATUS_CHANGED = "booking.status_changed"
EXTENDED = "booking.extended"
CHANGED = "booking.changed"

#: Asks the confirmation service to confirm a hold, and to release what it may have confirmed.
RESERVATION_CONFIRM = "reservation_confirm"
RESERVATION_RELEASE = "reservation_release"

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

#: The members of events whose columns have other names.
WIRE_NAMES = {"starts_at": "start", "ends_at": "end"}


def of_creation(reservation: Reservation, headers: dict[str, str]) -> list[Event]:
    """Return the events of a new reservation: that it was made and, of a hold, the request to have it confirmed."""
    payload = _facts(reservation)
    names = (CREATED, RESERVATION_CONFIRM) if reservation.status is Status.PENDING else (CREATED,)
    return [Event(name, reservation.id, payload, headers) for name in names]


def of_status(
    reservation: Reservation, from_status: Status, reason: str | None, headers: Mapping[str, str]
) -> list[Event]:
    """Return the events of a change from `from_status` to the status that the reservation has now."""
    change = {"from_status": from_status, "to_status": reservation.status, "reason": reason}
    payload = _facts(reservation) | change
    names = (STATUS_CHANGED, OWN_EVENT[reservation.status])
    return [Event(name, reservation.id, payload, headers) for name in names]


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
        found.append(Event(CHANGED, reservation.id, _facts(reservation) | {"changed": changed}, headers))
    return found


def release(reservation: Reservation, headers: Mapping[str, str]) -> Event:
    """Return the request that the confirmation service release what it may have confirmed."""
    return Event(RESERVATION_RELEASE, reservation.id, _facts(reservation), headers)


def _facts(reservation: Reservation) -> dict[str, Any]:
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
