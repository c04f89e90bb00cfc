"""The table of occupancies: which time of a calendar belongs to which reservation."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    CompoundSelect,
    DateTime,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    SmallInteger,
    Table,
    Uuid,
    func,
    literal_column,
    not_,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from domain.runtime.database import metadata

#: The constraint that a second reservation of the same time breaks, on a calendar of capacity 1. The lock of the item
#: keeps requests from each other; this is the last line of defence.
TIME_IS_EXCLUSIVE = "ex_calendar_occupancies_time"

#: One row for each line of a reservation of time, as long as the time is not free again. From `blocked_from` until
#: `blocked_until` is the period of the reservation, widened by the buffers of the calendar. While the reservation is a
#: hold, `held_until` is when it lapses. The time `is_exclusive` if the calendar had a capacity of 1 when it was taken,
#: or got it before the time was over.
occupancies = Table(
    "calendar_occupancies",
    metadata,
    Column("reservation_id", Uuid, ForeignKey("reservations.id"), primary_key=True),
    Column("position", SmallInteger, primary_key=True, autoincrement=False),
    Column("item_id", BigInteger, nullable=False),
    Column("units", Integer, nullable=False),
    Column("blocked_from", DateTime(timezone=True), nullable=False),
    Column("blocked_until", DateTime(timezone=True), nullable=False),
    Column("held_until", DateTime(timezone=True)),
    Column("is_exclusive", Boolean, nullable=False),
    CheckConstraint("blocked_from < blocked_until", name="not_empty"),
    CheckConstraint("units > 0", name="units_positive"),
)


def item_range(item_id: ColumnElement[int]) -> ColumnElement[object]:
    """Return the range that has this id only: a range can be indexed with a period, and needs no extension."""
    return func.int8range(item_id, item_id, literal_column("'[]'"))


def time_range(of: FromClause) -> ColumnElement[object]:
    """Return the time from `blocked_from` until `blocked_until`."""
    return func.tstzrange(of.c.blocked_from, of.c.blocked_until)


time_is_exclusive = ExcludeConstraint(
    (item_range(occupancies.c.item_id), "&&"),
    (time_range(occupancies), "&&"),
    using="gist",
    where=text("is_exclusive"),
    name=TIME_IS_EXCLUSIVE,
)
occupancies.append_constraint(time_is_exclusive)
#: Each row is in one of the two indexes by time.
Index(
    "ix_calendar_occupancies_time",
    item_range(occupancies.c.item_id),
    time_range(occupancies),
    postgresql_using="gist",
    postgresql_where=text("NOT is_exclusive"),
)


def overlapping(
    columns: Iterable[ColumnElement[Any]],
    item_id: ColumnElement[int],
    time: ColumnElement[Any],
    *conditions: ColumnElement[bool],
    of: Iterable[FromClause] = (),
) -> CompoundSelect[Any]:
    """Return the statement for occupancies of a calendar that overlap a time, by both indexes.

    As a subquery, it may use what it is joined to: `of`.
    """
    overlaps = (
        item_range(occupancies.c.item_id).op("&&")(item_range(item_id)),
        time_range(occupancies).op("&&")(time),
    )
    one = select(*columns).where(*overlaps, *conditions).correlate(*of)
    return union_all(one.where(occupancies.c.is_exclusive), one.where(not_(occupancies.c.is_exclusive)))
