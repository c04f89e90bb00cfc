"""The tables of reservations, of their further lines and of their history."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    SmallInteger,
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
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from domain.access import ANONYMOUS
from domain.bookings import Booking
from domain.calendars.periods import Period
from domain.items import items
from domain.reservations.durations import class_of
from domain.reservations.lifecycle import Kind, Status
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
    Column("client_id", String(255), nullable=False, server_default=ANONYMOUS.client_id),
    Column("external_reference", String(255)),
    Column("line_count", SmallInteger, nullable=False, server_default="1"),
    Column("starts_at", DateTime(timezone=True)),
    Column("ends_at", DateTime(timezone=True)),
    Column("guest_id", String(64)),
    # By which people know it, if it is a booking.
    Column("booking_reference", String(20)),
    # Those of its first item, by which it belongs to them.
    Column("venue", String(64)),
    Column("provider", String(64)),
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
    Column("rejected_at", DateTime(timezone=True)),
    CheckConstraint("quantity > 0", name="quantity_positive"),
    CheckConstraint(f"status IN ({_statuses})", name="status_known"),
    CheckConstraint(
        "(starts_at IS NULL AND ends_at IS NULL)"
        " OR (starts_at IS NOT NULL AND ends_at IS NOT NULL AND starts_at < ends_at)",
        name="period_whole",
    ),
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
    (reservations.c.venue,),
    (reservations.c.provider,),
    (reservations.c.source,),
    (),
)


def are_given(columns: Iterable[Column[Any]]) -> Sequence[ColumnElement[bool]]:
    """Return the conditions that those of the columns are given that may be null: no index has the others."""
    return [column.is_not(None) for column in columns if column.nullable]


for _columns in LISTED_BY:
    Index(
        None,
        *_columns,
        reservations.c.status,
        reservations.c.id,
        postgresql_where=and_(*_given) if (_given := are_given(_columns)) else None,
    )

#: A list of what overlaps a window is read by an index that begins with these columns.
OVERLAPPING_BY: Sequence[tuple[Column[Any], ...]] = (
    (reservations.c.guest_id,),
    (reservations.c.item_id,),
    (reservations.c.venue,),
    (reservations.c.provider,),
    (reservations.c.status,),
    (),
)

for _columns in OVERLAPPING_BY:
    _is_listed = [reservations.c.starts_at.is_not(None), *are_given(_columns)]
    Index(
        "_".join(["ix_reservations", *(one.name for one in _columns), "time"]),
        *_columns,
        class_of(reservations.c.starts_at, reservations.c.ends_at),
        reservations.c.starts_at,
        reservations.c.id,
        postgresql_where=and_(*_is_listed),
    )

#: The index that a second reservation with the same outside reference of a client breaks.
REFERENCE_IS_UNIQUE = "uq_reservations_client_id_external_reference"

Index(
    REFERENCE_IS_UNIQUE,
    reservations.c.client_id,
    reservations.c.external_reference,
    unique=True,
    postgresql_where=reservations.c.external_reference.is_not(None),
)

#: The index that a second booking of the same reference breaks.
BOOKING_REFERENCE_IS_UNIQUE = "uq_reservations_booking_reference"

Index(
    BOOKING_REFERENCE_IS_UNIQUE,
    reservations.c.booking_reference,
    unique=True,
    postgresql_where=reservations.c.booking_reference.is_not(None),
)

#: The lines of a reservation after its first one, which is in the reservation itself. While the reservation is a hold,
#: `held_until` is when it expires, so that overdue units of an item are found without reading what has ended.
reservation_lines = Table(
    "reservation_lines",
    metadata,
    Column("reservation_id", Uuid, ForeignKey("reservations.id"), primary_key=True),
    Column("position", SmallInteger, primary_key=True, autoincrement=False),
    Column("item_id", BigInteger, ForeignKey("items.id"), nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("held_until", DateTime(timezone=True)),
    # Those of the reservation, if the item is a calendar.
    Column("starts_at", DateTime(timezone=True)),
    Column("ends_at", DateTime(timezone=True)),
    CheckConstraint("position > 1", name="after_the_first"),
    CheckConstraint("quantity > 0", name="quantity_positive"),
)

Index("ix_reservation_lines_item_id_reservation_id", reservation_lines.c.item_id, reservation_lines.c.reservation_id)
Index(
    "ix_reservation_lines_item_holds",
    reservation_lines.c.item_id,
    reservation_lines.c.held_until,
    postgresql_where=reservation_lines.c.held_until.is_not(None),
)
Index(
    "ix_reservation_lines_item_id_time",
    reservation_lines.c.item_id,
    class_of(reservation_lines.c.starts_at, reservation_lines.c.ends_at),
    reservation_lines.c.starts_at,
    reservation_lines.c.reservation_id,
    postgresql_where=reservation_lines.c.starts_at.is_not(None),
)


#: One entry for each version. `details` has the changed fields: `{"note": {"from": null, "to": "Late arrival"}}`. Those
#: that are kept elsewhere have no values there.
history = Table(
    "reservation_history",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("reservation_id", Uuid, ForeignKey("reservations.id"), nullable=False, index=True),
    Column("from_status", String(20)),
    Column("to_status", String(20), nullable=False),
    Column("changed_by", String(255), nullable=False),
    Column("reason", Text),
    Column("kind", String(20), nullable=False, server_default=Kind.STATUS.value),
    Column("details", JSONB),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`quantity` units of one item within a reservation; `sku` is the item's."""

    item_id: int
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """`quantity` units of one item, and `further_lines` of other items. Instants are UTC; `sku` is the item's.

    The items are all stock, or all calendars. Of calendars, the units are reserved from `starts_at` until `ends_at`.
    A hold without `expires_at` never lapses. `metadata` is the client's JSON as text. The reservation belongs to that
    client, who may know it by an `external_reference`, to its guest, and to the venue and the provider of its items.
    A booking has a `booking_reference`; the `booking` itself is there only where it was just made, and so is the period
    of a `slot`.
    """

    id: UUID
    item_id: int
    sku: str
    quantity: int
    status: Status
    version: int
    expires_at: datetime | None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    client_id: str = ANONYMOUS.client_id
    external_reference: str | None = None
    guest_id: str | None
    booking_reference: str | None = None
    booking: Booking | None = None
    slot: Period | None = None
    venue: str | None = None
    provider: str | None = None
    source: str
    note: str | None
    metadata: str | None
    cancellation_reason: str | None = None
    cancelled_by: str | None = None
    created_at: datetime
    updated_at: datetime
    confirmed_at: datetime | None = None
    checked_in_at: datetime | None = None
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None
    rejected_at: datetime | None = None
    further_lines: tuple[Line, ...] = ()

    @property
    def period(self) -> Period | None:
        """When it is, if it is of calendars."""
        return None if self.starts_at is None or self.ends_at is None else Period(self.starts_at, self.ends_at)

    @property
    def held_until(self) -> datetime | None:
        """When it lapses, if it is a hold that does."""
        return self.expires_at if self.status is Status.PENDING else None

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines, the one of `item_id` first."""
        return (Line(item_id=self.item_id, sku=self.sku, quantity=self.quantity), *self.further_lines)

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
            starts_at=row.starts_at,
            ends_at=row.ends_at,
            client_id=row.client_id,
            external_reference=row.external_reference,
            guest_id=row.guest_id,
            booking_reference=row.booking_reference,
            venue=row.venue,
            provider=row.provider,
            source=row.source,
            note=row.note,
            metadata=row.metadata,
            cancellation_reason=row.cancellation_reason,
            cancelled_by=row.cancelled_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
            confirmed_at=row.confirmed_at,
            checked_in_at=row.checked_in_at,
            completed_at=row.completed_at,
            cancelled_at=row.cancelled_at,
            # The release before does not write it. A rejection is the last change of a reservation.
            rejected_at=row.rejected_at or (row.updated_at if row.status == Status.REJECTED else None),
            further_lines=() if row.further_lines is None else _lines_of(row.further_lines),
        )


_STATUSES = {status.value: status for status in Status}


def units_of(several: Iterable[Reservation]) -> Mapping[int, int]:
    """Return how many units of stock reservations have in all, by item."""
    units: Counter[int] = Counter()
    for one in several:
        if one.starts_at is not None:
            continue
        units[one.item_id] += one.quantity
        for line in one.further_lines:
            units[line.item_id] += line.quantity
    return units


def _lines_of(rows: Sequence[tuple[int, str, int]]) -> tuple[Line, ...]:
    return tuple(Line(item_id=item_id, sku=sku, quantity=quantity) for item_id, sku, quantity in rows)


_line_items = items.alias("line_items")
_one_line = func.json_build_array(_line_items.c.id, _line_items.c.sku, reservation_lines.c.quantity)
_its_lines = (
    select(func.json_agg(aggregate_order_by(_one_line, reservation_lines.c.position)))
    .select_from(reservation_lines.join(_line_items, _line_items.c.id == reservation_lines.c.item_id))
    .where(reservation_lines.c.reservation_id == reservations.c.id)
    .correlate(reservations)
    .scalar_subquery()
)
#: The lines after the first one, as JSON. They are not looked for where there are none.
further_lines = case((reservations.c.line_count > 1, _its_lines)).label("further_lines")


#: The columns that are read, but for the metadata, which may have 16 kB.
FIELDS: Sequence[Column[Any]] = (
    reservations.c.id,
    reservations.c.item_id,
    reservations.c.quantity,
    reservations.c.status,
    reservations.c.version,
    reservations.c.expires_at,
    reservations.c.starts_at,
    reservations.c.ends_at,
    reservations.c.client_id,
    reservations.c.external_reference,
    reservations.c.guest_id,
    reservations.c.booking_reference,
    reservations.c.venue,
    reservations.c.provider,
    reservations.c.source,
    reservations.c.note,
    reservations.c.cancellation_reason,
    reservations.c.cancelled_by,
    reservations.c.created_at,
    reservations.c.updated_at,
    reservations.c.confirmed_at,
    reservations.c.checked_in_at,
    reservations.c.completed_at,
    reservations.c.cancelled_at,
    reservations.c.rejected_at,
)


def metadata_of(columns: ReadOnlyColumnCollection[str, Any]) -> ColumnElement[str | None]:
    """Return the metadata as text. Where the release before has written it, its numbers have all their digits."""
    return func.coalesce(columns.metadata_text, cast(columns.metadata, Text)).label("metadata")


#: How a reservation is read, with the sku of its item.
read: Select[Any] = select(*FIELDS, further_lines, items.c.sku, metadata_of(reservations.c)).join_from(
    reservations, items
)

#: The same for those who record events only: no event contains the metadata, and here it is None.
read_for_events: Select[Any] = select(*FIELDS, further_lines, items.c.sku, null().label("metadata")).join_from(
    reservations, items
)
