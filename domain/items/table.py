"""The table of items: what can be reserved, and how much of it there is."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Identity,
    Index,
    Integer,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
    any_,
    bindparam,
    cast,
    func,
    or_,
)
from sqlalchemy.dialects.postgresql import ARRAY

from domain.runtime.database import is_given, metadata

#: What PostgreSQL's `integer` holds; more units of one thing than anyone stores.
MAX_QUANTITY = 2_147_483_647

#: What PostgreSQL's `bigint` holds.
MAX_ID = 2**63 - 1


class Kind(StrEnum):
    """What of an item is reserved: units that are counted, or units of time."""

    STOCK = "stock"
    CALENDAR = "calendar"


_kinds = ", ".join(f"'{kind}'" for kind in Kind)

#: The constraint that a second item with the same sku breaks.
SKU_IS_UNIQUE = "uq_items_sku"

items = Table(
    "items",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("sku", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("available_quantity", Integer, nullable=False, server_default="0"),
    Column("stock_quantity", Integer, nullable=False, server_default="0"),
    Column("kind", String(20), nullable=False, server_default=Kind.STOCK.value),
    Column("capacity", Integer),
    Column("time_zone", String(64)),
    Column("buffer_before_seconds", Integer),
    Column("buffer_after_seconds", Integer),
    # JSON, as `domain.calendars.opening_hours` reads and writes it.
    Column("opening_hours", Text),
    Column("venue", String(64)),
    Column("provider", String(64)),
    # The list price; see `domain.bookings.prices`.
    Column("price_amount", Numeric(18, 4)),
    Column("price_currency", String(3)),
    Column("price_per", String(20)),
    # The period of a slot; see `domain.providers`.
    Column("slot_starts_at", DateTime(timezone=True)),
    Column("slot_ends_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("sku", name=SKU_IS_UNIQUE),
    CheckConstraint("available_quantity >= 0", name="never_oversold"),
    CheckConstraint("available_quantity <= stock_quantity", name="available_within_stock"),
    CheckConstraint(f"kind IN ({_kinds})", name="kind_known"),
    CheckConstraint("capacity > 0", name="capacity_positive"),
    CheckConstraint(
        "kind <> 'calendar' OR (capacity IS NOT NULL AND time_zone IS NOT NULL AND stock_quantity = 0"
        " AND buffer_before_seconds IS NOT NULL AND buffer_after_seconds IS NOT NULL)",
        name="calendar_complete",
    ),
    CheckConstraint(
        "(price_amount IS NULL) = (price_currency IS NULL) AND (price_amount IS NULL) = (price_per IS NULL)"
        " AND (price_amount IS NULL OR price_amount >= 0)",
        name="price_complete",
    ),
    CheckConstraint(
        "(slot_starts_at IS NULL) = (slot_ends_at IS NULL) AND (slot_starts_at IS NULL OR ("
        "slot_starts_at < slot_ends_at AND kind = 'stock' AND stock_quantity <= 1 AND provider IS NOT NULL))",
        name="slot_complete",
    ),
    # A hot item is rewritten at each commit; with room on its page that touches no index.
    postgresql_with={"fillfactor": 50},
)

Index(
    "ix_items_provider_slot",
    items.c.provider,
    items.c.slot_starts_at,
    items.c.id,
    postgresql_where=items.c.slot_starts_at.is_not(None),
)
Index("ix_items_venue_id", items.c.venue, items.c.id, postgresql_where=items.c.venue.is_not(None))


def are_named() -> ColumnElement[bool]:
    """Return the condition for items that are named by their ids or skus. `by_kind` returns its parameters."""
    return or_(
        is_given(items.c.id),
        items.c.sku == any_(cast(bindparam("skus"), ARRAY(String))),
    )


def by_kind(names: Iterable[int | str]) -> dict[str, list[Any]]:
    """Return the parameters of a statement for the items of these names. A number is an id.

    No list is empty, or PostgreSQL would see that it finds nothing in it, for which any partial index would do: it
    would read all of the one that it takes for empty.
    """
    named = set(names)
    return {
        "ids": [name for name in named if isinstance(name, int)] or [NO_ID],
        "skus": [name for name in named if isinstance(name, str)] or [NO_SKU],
    }


#: No item has them.
NO_ID, NO_SKU = 0, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What can be reserved.

    Of stock, `stock_quantity` is all that was ever put in; `available_quantity` what nobody holds and nobody has used
    up. Of a calendar, `capacity` units can be reserved at any moment. Between two of its reservations lie the first
    one's `buffer_after_seconds` and the second one's `buffer_before_seconds`. `opening_hours` (JSON; None: always open)
    are wall time in its IANA `time_zone`. Items of the same `venue` are alternatives to each other.
    Whoever acts for the `venue` or for the `provider` has rights to the item and to its reservations. Its list price is
    `price_amount`, in `price_currency`, for what `price_per` says. A slot of a provider is stock of one unit, from
    `slot_starts_at` until `slot_ends_at`.
    """

    id: int
    sku: str
    name: str
    available_quantity: int
    stock_quantity: int
    kind: str = Kind.STOCK
    capacity: int | None = None
    time_zone: str | None = None
    buffer_before_seconds: int | None = None
    buffer_after_seconds: int | None = None
    opening_hours: str | None = None
    venue: str | None = None
    provider: str | None = None
    price_amount: Decimal | None = None
    price_currency: str | None = None
    price_per: str | None = None
    slot_starts_at: datetime | None = None
    slot_ends_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
