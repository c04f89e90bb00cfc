"""Reading the reservations of a window of time, in order of their starts, a part at a time.

An overdue hold is read as EXPIRED, as everywhere. Reservations of stock have no time, and are not found here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, select, tuple_
from sqlalchemy.orm import Session

from domain.calendars.periods import MAX_PERIOD
from domain.items import items
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations, status_by_now


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The reservations that overlap the time from `start` until just before `end`. What is None narrows nothing."""

    start: datetime | None = None
    end: datetime | None = None
    guest_id: str | None = None
    sku: str | None = None
    status: Status | None = None


class Found(NamedTuple):
    """A reservation of a window. Its start and its end are microseconds since 1970."""

    id: UUID
    guest_id: str | None
    status: str
    sku: str
    start: int
    end: int
    note: str | None
    starts_at: datetime


#: A place in the order of a window: the start of a reservation, and its id.
Place = tuple[datetime, UUID]


def read(session: Session, window: Window, *, after: Place | None = None, size: int) -> Iterator[Sequence[Found]]:
    """Yield the reservations that follow `after`, in parts of up to `size`, from a cursor of PostgreSQL.

    The order is that of `Place`.
    """
    statement = _in_order(_READ, after).where(*_conditions(window))
    result = session.execute(statement, execution_options={"yield_per": size})
    try:
        for part in result.partitions():
            yield [Found(*row) for row in part]
    finally:
        result.close()


def _in_order(statement: Select[Any], after: Place | None) -> Select[Any]:
    place = tuple_(reservations.c.starts_at, reservations.c.id)
    if after is not None:
        statement = statement.where(place > after)
    return statement.order_by(*place)


def _conditions(window: Window) -> Iterator[ColumnElement[bool]]:
    yield reservations.c.starts_at.is_not(None)
    if window.start is not None:
        # No period is longer, so that an index on the start needs to be read from there only.
        yield reservations.c.starts_at > window.start - MAX_PERIOD
        yield reservations.c.ends_at > window.start
    if window.end is not None:
        yield reservations.c.starts_at < window.end
    if window.guest_id is not None:
        yield reservations.c.guest_id == window.guest_id
    if window.sku is not None:
        yield reservations.c.item_id == select(items.c.id).where(items.c.sku == window.sku).scalar_subquery()
    if window.status is not None:
        yield status_by_now == window.status


def _microseconds(instant: ColumnElement[datetime]) -> ColumnElement[int]:
    # A number of PostgreSQL's `numeric`, so that no microsecond is lost.
    return cast(func.extract("epoch", instant) * 1_000_000, BigInteger)


_READ = select(
    reservations.c.id,
    reservations.c.guest_id,
    status_by_now,
    items.c.sku,
    _microseconds(reservations.c.starts_at),
    _microseconds(reservations.c.ends_at),
    reservations.c.note,
    reservations.c.starts_at,
).join_from(reservations, items)
