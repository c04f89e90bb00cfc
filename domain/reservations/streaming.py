"""Streaming the reservations that overlap a window, in order of their start, from a cursor of PostgreSQL.

The pages of `overlapping` read the first rows of each class of durations. A cursor merges the classes instead, each
read by its index in order of the start. So the first row comes at once, and a million rows are never sorted.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Column, ColumnElement, Select, cast, func, literal, select, tuple_, union_all
from sqlalchemy.orm import Session

from domain.calendars.periods import EARLIEST, LATEST
from domain.items import id_of, items
from domain.reservations.durations import CLASSES, class_of, longest
from domain.reservations.lifecycle import Status
from domain.reservations.queries import Filter, Window
from domain.reservations.table import reservation_lines, reservations, status_by_now
from domain.runtime.database import READ_IN_INDEX_ORDER
from domain.runtime.identity import LOWEST_ID

#: A place in the order of a stream: the start of a reservation, and its id.
Place = tuple[datetime, UUID]

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
    session: Session, wanted: Filter, window: Window, *, after: Place = BEGINNING, size: int
) -> Iterator[Sequence[Found]]:
    """Yield the reservations that overlap a window, in order of start and id, after a place, in parts of up to `size`.

    Of the filter, the user, the sku and the status are looked at. An overdue hold is EXPIRED, as everywhere. For the
    rest of the transaction, PostgreSQL reads by indexes only.
    """
    session.execute(READ_IN_INDEX_ORDER)
    values: dict[str, Any] = {} if wanted.guest_id is None else {"guest_id": wanted.guest_id}
    if wanted.sku is not None:
        values["item_id"] = id_of(session, wanted.sku)
    if None in values.values():
        return
    result = session.execute(_statement(values, wanted.status, window, after), execution_options={"yield_per": size})
    try:
        for part in result.partitions():
            yield [Found(*row) for row in part]
    finally:
        result.close()


def _statement(values: Mapping[str, Any], status: Status | None, window: Window, after: Place) -> Select[Any]:
    scans = chain(*(_scans(number, values, status, window, after) for number in CLASSES))
    found = union_all(*map(_in_order, scans)).subquery("found")
    columns = (column for column in found.c if column.name != "item_id")
    with_skus = found.join(items, items.c.id == found.c.item_id)
    return select(*columns, items.c.sku).select_from(with_skus).order_by(found.c.starts_at, found.c.id)


def _in_order(scan: Select[Any]) -> Select[Any]:
    columns = scan.selected_columns
    # With an offset it is planned by itself. Otherwise, PostgreSQL does not see that the index has this order.
    return scan.order_by(columns.starts_at, columns.id).offset(0)


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
        yield _read.where(*own, *wanted, reservations.c.guest_id.is_not(None))
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
