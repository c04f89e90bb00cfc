"""Streaming the reservations that overlap a window, in order of their start, from a cursor of PostgreSQL.

The pages of `overlapping` read the first rows of each class of durations. A cursor merges the classes instead, each
read by its index in order of the start. So the first row comes at once, and a million rows are never sorted.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnCollection,
    ColumnElement,
    Select,
    any_,
    cast,
    func,
    literal,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from domain.access import EVERYTHING, Reach
from domain.calendars.periods import EARLIEST, LATEST
from domain.items import id_of, items
from domain.reservations.durations import CLASSES, class_of, longest
from domain.reservations.lifecycle import Status
from domain.reservations.listing import has_item
from domain.reservations.queries import Filter, Window, owner_in
from domain.reservations.table import are_given, reservation_lines, reservations, status_by_now
from domain.runtime.database import READ_IN_INDEX_ORDER
from domain.runtime.identity import LOWEST_ID

#: A place in the order of a stream: the start of a reservation, and its id.
Place = tuple[datetime, UUID]

#: The filters that are looked at, beside the sku and the status.
OWNERS = "guest_id", "venue", "provider"

#: The place before all reservations.
BEGINNING: Place = (EARLIEST, LOWEST_ID)


class Found(NamedTuple):
    """A reservation of a stream. `start` and `end` are its period, in microseconds since 1970."""

    id: UUID
    starts_at: datetime
    guest_id: str | None
    status: str
    note: str | None
    start: int
    end: int
    sku: str

    @property
    def place(self) -> Place:
        """Where it is in the order of the stream."""
        return self.starts_at, self.id


def stream(
    session: Session, wanted: Filter, window: Window, *, after: Place = BEGINNING, size: int, reach: Reach = EVERYTHING
) -> Iterator[Sequence[Found]]:
    """Yield the reservations within reach that overlap a window, in order of start and id, after a place.

    They come in parts of up to `size`. Of the filter, the user, the sku and the status are looked at. An overdue hold
    is EXPIRED, as everywhere. For the rest of the transaction, PostgreSQL reads by indexes only.
    """
    session.execute(READ_IN_INDEX_ORDER)
    narrowed = wanted.within(reach)
    if narrowed is None:
        return
    wanted = narrowed
    values: dict[str, Any] = {name: one for name in OWNERS if (one := getattr(wanted, name)) is not None}
    if wanted.sku is not None:
        values["item_id"] = id_of(session, wanted.sku)
    if None in values.values():
        return
    statement = _statement(values, wanted.status, window, after, owner_in(values, reach))
    result = session.execute(statement, execution_options={"yield_per": size})
    try:
        for part in result.partitions():
            yield [Found(*row) for row in part]
    finally:
        result.close()


def _statement(
    values: Mapping[str, Any], status: Status | None, window: Window, after: Place, owner: str | None = None
) -> Select[Any]:
    if owner is None:
        scans = chain(*(_scans(number, values, status, window, after) for number in CLASSES))
    else:
        scans = chain(_own_scan(number, values, status, window, after, owner) for number in CLASSES)
    found = union_all(*map(_in_order, scans)).subquery("found")
    columns = (column for column in found.c if column.name not in ("item_id", "owner"))
    with_skus = found.join(items, items.c.id == found.c.item_id)
    return select(*columns, items.c.sku).select_from(with_skus).order_by(*_order(found.c))


def _in_order(scan: Select[Any]) -> Select[Any]:
    # With an offset it is planned by itself. Otherwise, PostgreSQL does not see that the index has this order.
    return scan.order_by(*_order(scan.selected_columns)).offset(0)


def _order(columns: ColumnCollection[str, Any]) -> Sequence[ColumnElement[Any]]:
    """Return the order of a stream. All of what is one's own has the same owner, who is in front."""
    return [columns[name] for name in ("owner", "starts_at", "id") if name in columns]


def _own_scan(
    number: int, values: Mapping[str, Any], status: Status | None, window: Window, after: Place, owner: str
) -> Select[Any]:
    """Return the statement that reads one class of an owner's reservations, by the index that begins with the owner.

    No other index has the order of the stream, because the owner equals an array of one value, as in `listing`. So the
    stream takes no longer for reservations of others, however many there are of the wanted item.
    """
    column = reservations.c[owner]
    wanted = [reservations.c[name] == value for name, value in values.items() if name not in ("item_id", owner)]
    wanted += [status_by_now == status] if status else []
    wanted += [has_item(literal(values["item_id"], items.c.id.type))] if "item_id" in values else []
    window_of = _overlapping(reservations.c.starts_at, reservations.c.id, reservations.c.ends_at, number, window, after)
    is_owned = column == any_(array([literal(values[owner], column.type)])), *are_given([column])
    return _read.add_columns(column.label("owner")).where(*is_owned, *window_of, *wanted)


def _scans(
    number: int, values: Mapping[str, Any], status: Status | None, window: Window, after: Place
) -> Iterator[Select[Any]]:
    """Yield the statements that read one class of durations, each by an index."""
    own = _overlapping(reservations.c.starts_at, reservations.c.id, reservations.c.ends_at, number, window, after)
    wanted = [reservations.c[name] == value for name, value in values.items() if name != "item_id"]
    wanted += [status_by_now == status] if status else []
    if "item_id" in values:
        yield _read.where(*own, *wanted, reservations.c.item_id == values["item_id"])
        # A reservation of several items has lines for all but the first.
        line = reservation_lines.c
        of_line = _overlapping(line.starts_at, line.reservation_id, line.ends_at, number, window, after)
        yield _read_by_lines.where(*of_line, *wanted, line.item_id == values["item_id"])
    elif values:
        yield _read.where(*own, *wanted, *are_given(reservations.c[name] for name in values))
    else:
        for stored in _stored_as(status):
            yield _read.where(*own, *wanted, *([reservations.c.status == stored] if stored else []))


def _stored_as(status: Status | None) -> Sequence[Status | None]:
    """Return the statuses that reservations with this one are stored with: an overdue hold is stored as PENDING."""
    return (status, Status.PENDING) if status is Status.EXPIRED else (status,)


def _overlapping(
    starts_at: Column[Any], row_id: Column[Any], ends_at: Column[Any], number: int, window: Window, after: Place
) -> list[ColumnElement[bool]]:
    """Return the conditions for the rows of one class that overlap a window and come after a place."""
    begin = window.ends_after or EARLIEST
    start, last_id = max((begin - longest(number), LOWEST_ID), after)
    return [
        class_of(starts_at, ends_at) == number,
        starts_at.is_not(None),
        tuple_(starts_at, row_id) > tuple_(literal(start, starts_at.type), literal(last_id, row_id.type)),
        starts_at < (window.starts_before or LATEST),
        ends_at > begin,
    ]


def _microseconds(instant: ColumnElement[datetime]) -> ColumnElement[int]:
    # PostgreSQL counts in `numeric`, so no microsecond is lost.
    return cast(func.extract("epoch", instant) * 1_000_000, BigInteger)


_columns = (
    reservations.c.guest_id,
    status_by_now.label("status"),
    reservations.c.note,
    _microseconds(reservations.c.starts_at).label("start"),
    _microseconds(reservations.c.ends_at).label("end"),
    reservations.c.item_id,
)
_read = select(reservations.c.id, reservations.c.starts_at, *_columns)
_read_by_lines = select(
    reservation_lines.c.reservation_id.label("id"), reservation_lines.c.starts_at, *_columns
).join_from(reservation_lines, reservations, reservations.c.id == reservation_lines.c.reservation_id)
