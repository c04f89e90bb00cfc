"""The tables of reservations and of their history."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Select,
    String,
    Table,
    Text,
    Uuid,
    and_,
    case,
    cast,
    func,
    literal,
    null,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from domain.items import items
from domain.reservations.lifecycle import Status
from domain.runtime.database import CLOCK, metadata

_statuses = ", ".join(f"'{status}'" for status in Status)

reservations = Table(
    "reservations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("item_id", BigInteger, ForeignKey("items.id"), nullable=False),
    Column("idempotency_key", String(255)),
    Column("quantity", Integer, nullable=False),
    Column("status", String(20), nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("expires_at", DateTime(timezone=True)),
    Column("guest_id", String(64)),
    Column("source", String(50), nullable=False, server_default="api"),
    Column("note", Text),
    # The JSON as the client wrote it. In jsonb every number is written with all its digits: 1e308 has 309.
    Column("metadata_text", Text),
    # Written for the release before, which reads it. This one reads it where that one has written.
    Column("metadata", JSONB),
    Column("cancellation_reason", Text),
    Column("cancelled_by", String(255)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("confirmed_at", DateTime(timezone=True)),
    Column("checked_in_at", DateTime(timezone=True)),
    Column("completed_at", DateTime(timezone=True)),
    Column("cancelled_at", DateTime(timezone=True)),
    CheckConstraint("quantity > 0", name="quantity_positive"),
    CheckConstraint(f"status IN ({_statuses})", name="status_known"),
    CheckConstraint("status <> 'PENDING' OR expires_at IS NOT NULL", name="hold_expires"),
)

is_hold = and_(reservations.c.status == text("'PENDING'"))
is_overdue = and_(is_hold, reservations.c.expires_at <= CLOCK)

#: The status by now: an overdue hold is EXPIRED, whether maintenance has seen it or not.
status_by_now: ColumnElement[str] = case((is_overdue, literal(Status.EXPIRED.value)), else_=reservations.c.status)

Index("ix_reservations_status_expires_at", reservations.c.status, reservations.c.expires_at, postgresql_where=is_hold)
Index("ix_reservations_item_holds", reservations.c.item_id, reservations.c.expires_at, postgresql_where=is_hold)
#: A list that is filtered by these columns is read by an index that begins with them. In each index the status and the
#: id follow, so that it answers the same filter with a status as well. Nine statuses are few enough to be read one
#: after the other where no status is wanted.
LISTED_BY: Sequence[tuple[Column[Any], ...]] = (
    (reservations.c.guest_id, reservations.c.item_id),
    (reservations.c.guest_id, reservations.c.source),
    (reservations.c.item_id, reservations.c.source),
    (reservations.c.guest_id,),
    (reservations.c.item_id,),
    (reservations.c.source,),
    (),
)

for _columns in LISTED_BY:
    Index(
        None,
        *_columns,
        reservations.c.status,
        reservations.c.id,
        postgresql_where=reservations.c.guest_id.is_not(None) if reservations.c.guest_id in _columns else None,
    )

history = Table(
    "reservation_history",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("reservation_id", Uuid, ForeignKey("reservations.id"), nullable=False, index=True),
    Column("from_status", String(20)),
    Column("to_status", String(20), nullable=False),
    Column("changed_by", String(255), nullable=False),
    Column("reason", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)


_STATUSES = {status.value: status for status in Status}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """`quantity` units of one item. Instants are UTC; `sku` is the item's; `metadata` is the client's JSON as text."""

    id: UUID
    item_id: int
    sku: str
    quantity: int
    status: Status
    version: int
    expires_at: datetime | None
    guest_id: str | None
    source: str
    note: str | None
    metadata: str | None
    cancellation_reason: str | None = None
    created_at: datetime
    updated_at: datetime
    confirmed_at: datetime | None = None
    cancelled_at: datetime | None = None

    @classmethod
    def of(cls, row: Any) -> "Reservation":
        """Return the value of a row of `read`."""
        # Spelled out, because expiry reads ten thousand of these a second.
        return cls(
            id=row.id,
            item_id=row.item_id,
            sku=row.sku,
            quantity=row.quantity,
            status=_STATUSES[row.status],
            version=row.version,
            expires_at=row.expires_at,
            guest_id=row.guest_id,
            source=row.source,
            note=row.note,
            metadata=row.metadata,
            cancellation_reason=row.cancellation_reason,
            created_at=row.created_at,
            updated_at=row.updated_at,
            confirmed_at=row.confirmed_at,
            cancelled_at=row.cancelled_at,
        )


#: The columns that are read, but for the metadata, which may have 16 kB.
FIELDS: Sequence[Column[Any]] = (
    reservations.c.id,
    reservations.c.item_id,
    reservations.c.quantity,
    reservations.c.status,
    reservations.c.version,
    reservations.c.expires_at,
    reservations.c.guest_id,
    reservations.c.source,
    reservations.c.note,
    reservations.c.cancellation_reason,
    reservations.c.created_at,
    reservations.c.updated_at,
    reservations.c.confirmed_at,
    reservations.c.cancelled_at,
)


def metadata_of(columns: ReadOnlyColumnCollection[str, Any]) -> ColumnElement[str | None]:
    """Return the metadata as text. Where the release before has written it, its numbers have all their digits."""
    return func.coalesce(columns.metadata_text, cast(columns.metadata, Text)).label("metadata")


#: How a reservation is read, with the sku of its item.
read: Select[Any] = select(*FIELDS, items.c.sku, metadata_of(reservations.c)).join_from(reservations, items)

#: The same for those who record events only: no event contains the metadata, and here it is None.
read_for_events: Select[Any] = select(*FIELDS, items.c.sku, null().label("metadata")).join_from(reservations, items)
