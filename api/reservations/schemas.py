"""The shapes of reservations, and of the requests that make and change them."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

import msgspec
from msgspec import Meta

from api.http.fields import ItemId, Sku
from domain.items import MAX_QUANTITY
from domain.reservations import Reservation
from domain.reservations.lifecycle import Status

#: The longest hold, 7 days: a client that forgets its holds does not keep stock from others for longer.
MAX_TTL_SECONDS = 604_800

Quantity = Annotated[int, Meta(ge=1, le=MAX_QUANTITY, examples=[2])]
Reason = Annotated[str, Meta(min_length=1, max_length=500, examples=["The guest's plans changed"])]
Version = Annotated[int, Meta(ge=1, le=MAX_QUANTITY, examples=[1])]


class Guest(msgspec.Struct, forbid_unknown_fields=True):
    """The guest that a reservation is for, by the id that your systems use."""

    id: Annotated[str, Meta(min_length=1, max_length=64, examples=["guest-42"])]


class NewReservation(msgspec.Struct, forbid_unknown_fields=True):
    """A hold to make. Name its item by either `item_id` or `sku`. The hold expires after `ttl_seconds`."""

    quantity: Quantity
    item_id: ItemId | None = None
    sku: Sku | None = None
    ttl_seconds: Annotated[int, Meta(ge=1, le=MAX_TTL_SECONDS, examples=[900])] | None = None
    guest: Guest | None = None
    note: Annotated[str, Meta(max_length=2_000, examples=["Late arrival"])] | None = None
    metadata: Annotated[dict[str, Any], Meta(examples=[{"cart": "c-7"}])] | None = None


class Versioned(msgspec.Struct, forbid_unknown_fields=True):
    """The version to change. Without it, the current version is changed."""

    expected_version: Version | None = None


class Confirmation(Versioned, forbid_unknown_fields=True):
    """The version to confirm. Without it, the current version is confirmed."""


class CheckIn(Versioned, forbid_unknown_fields=True):
    """The version to check in. Without it, the current version is checked in."""


class Completion(Versioned, forbid_unknown_fields=True):
    """The version to complete. Without it, the current version is completed."""


class Reasoned(Versioned, forbid_unknown_fields=True):
    """The reason and the version to change, both optional. Without a version, the current one is changed."""

    reason: Reason | None = None


class Cancellation(Reasoned, forbid_unknown_fields=True):
    """The reason and the version to cancel, both optional. Without a version, the current one is cancelled."""


class Rejection(Reasoned, forbid_unknown_fields=True):
    """The reason and the version to reject, both optional. Without a version, the current one is rejected."""


class NoShow(Reasoned, forbid_unknown_fields=True):
    """The reason and the version to change, both optional. Without a version, the current one is changed."""


class ReservationView(msgspec.Struct):
    """A reservation. While it is PENDING, it is a hold that expires at `expires_at`. Timestamps are in UTC.

    `cancellation_reason` says why it was cancelled or rejected.
    """

    id: UUID
    item_id: ItemId
    sku: Sku
    quantity: Quantity
    status: Status
    version: Version
    expires_at: datetime | None
    guest: Guest | None
    source: str
    note: str | None
    metadata: dict[str, Any] | None
    cancellation_reason: str | None
    created_at: datetime
    updated_at: datetime
    confirmed_at: datetime | None
    cancelled_at: datetime | None

    @classmethod
    def of(cls, reservation: Reservation) -> Self:
        return cls(
            id=reservation.id,
            item_id=reservation.item_id,
            sku=reservation.sku,
            quantity=reservation.quantity,
            status=reservation.status,
            version=reservation.version,
            expires_at=reservation.expires_at,
            guest=None if reservation.guest_id is None else Guest(reservation.guest_id),
            source=reservation.source,
            note=reservation.note,
            metadata=reservation.metadata,
            cancellation_reason=reservation.cancellation_reason,
            created_at=reservation.created_at,
            updated_at=reservation.updated_at,
            confirmed_at=reservation.confirmed_at,
            cancelled_at=reservation.cancelled_at,
        )


class ReservationPage(msgspec.Struct):
    """Reservations, the newest first. If there is a `next_cursor`, there may be more: send it back as `cursor`."""

    reservations: list[ReservationView]
    next_cursor: str | None


def render_reservation(reservation: Reservation) -> str:
    """Return a reservation as JSON."""
    return msgspec.json.encode(ReservationView.of(reservation)).decode()
