"""What clients see: the shapes of items and reservations, and of what asks for them."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

import msgspec
from msgspec import Meta

from domain.items.table import MAX_ID, MAX_QUANTITY, Item
from domain.reservations import Reservation
from domain.reservations.lifecycle import Status

#: A hold of more than 7 days is no hold.
MAX_TTL_SECONDS = 604_800

#: PostgreSQL's text can't hold a NUL, so nothing that has one can be found.
NO_NUL = "^[^\\x00]*$"

Sku = Annotated[str, Meta(min_length=1, max_length=64, examples=["ROOM-101"])]
Name = Annotated[str, Meta(min_length=1, max_length=255, examples=["Double room, sea view"])]
ItemId = Annotated[int, Meta(ge=1, le=MAX_ID, examples=[1])]
Quantity = Annotated[int, Meta(ge=1, le=MAX_QUANTITY, examples=[2])]
Stock = Annotated[int, Meta(ge=0, le=MAX_QUANTITY, examples=[100])]
Reason = Annotated[str, Meta(min_length=1, max_length=500, examples=["The guest's plans changed"])]
Version = Annotated[int, Meta(ge=1, le=MAX_QUANTITY, examples=[1])]


class NewItem(msgspec.Struct, forbid_unknown_fields=True):
    """An item to be created, with that many units in stock."""

    sku: Sku
    name: Name
    available_quantity: Stock = 0


class ItemChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is to change: `adjust_quantity_by` adds units to the stock, or takes some away."""

    name: Name | None = None
    adjust_quantity_by: Annotated[int, Meta(ge=-MAX_QUANTITY, le=MAX_QUANTITY, examples=[10])] = 0


class Guest(msgspec.Struct, forbid_unknown_fields=True):
    """Whom it is for, by the id under which your systems know them."""

    id: Annotated[str, Meta(min_length=1, max_length=64, examples=["guest-42"])]


class NewReservation(msgspec.Struct, forbid_unknown_fields=True):
    """A hold to be made on the item with that id or that sku: give one of the two."""

    quantity: Quantity
    item_id: ItemId | None = None
    sku: Sku | None = None
    ttl_seconds: Annotated[int, Meta(ge=1, le=MAX_TTL_SECONDS, examples=[900])] | None = None
    guest: Guest | None = None
    note: Annotated[str, Meta(max_length=2_000, examples=["Late arrival"])] | None = None
    metadata: Annotated[dict[str, Any], Meta(examples=[{"cart": "c-7"}])] | None = None


class Confirmation(msgspec.Struct, forbid_unknown_fields=True):
    """Which version is to be confirmed, if it matters."""

    expected_version: Version | None = None


class Cancellation(msgspec.Struct, forbid_unknown_fields=True):
    """Why it is cancelled, and which version, if it matters."""

    reason: Reason | None = None
    expected_version: Version | None = None


class ItemView(msgspec.Struct):
    """An item. `stock_quantity` is all there is; `available_quantity` what nobody holds or used up."""

    id: ItemId
    sku: Sku
    name: Name
    available_quantity: Stock
    stock_quantity: Stock
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, item: Item) -> Self:
        return cls(
            id=item.id,
            sku=item.sku,
            name=item.name,
            available_quantity=item.available_quantity,
            stock_quantity=item.stock_quantity,
            created_at=item.created_at,
            updated_at=item.updated_at,
        )


class ReservationView(msgspec.Struct):
    """A reservation. A PENDING one is a hold until `expires_at`. Instants are UTC."""

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


class ItemPage(msgspec.Struct):
    """Items in order of id. With a `next_cursor` there may be more: send it back as `cursor`."""

    items: list[ItemView]
    next_cursor: str | None


class ReservationPage(msgspec.Struct):
    """Reservations, the newest first. With a `next_cursor` there may be more: send it back as `cursor`."""

    reservations: list[ReservationView]
    next_cursor: str | None


def render_item(item: Item) -> str:
    return msgspec.json.encode(ItemView.of(item)).decode()


def render_reservation(reservation: Reservation) -> str:
    return msgspec.json.encode(ReservationView.of(reservation)).decode()
