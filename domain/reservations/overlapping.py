"""The statement that reads a page of reservations of time that overlap a window, in order of their start.

It reads about as many rows as it shows, however many others there are: for each class of durations, it begins as long
before the window as the longest of them lasts. As in `listing`, PostgreSQL's statistics play no part in it.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    Integer,
    Select,
    String,
    Uuid,
    and_,
    any_,
    bindparam,
    func,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import array

from domain.calendars.periods import EARLIEST, LATEST
from domain.reservations.durations import CLASSES, class_of, longest
from domain.reservations.lifecycle import Status
from domain.reservations.listing import complete, equal, first_serving, others, value_of, within_bytes
from domain.reservations.table import OVERLAPPING_BY, are_given, reservation_lines, reservations, status_by_now
from domain.runtime.database import arrays, lists
from domain.runtime.identity import LOWEST_ID

_TIME = DateTime(timezone=True)
_classes = arrays("classes", number=Integer, status=String, start=_TIME, id=Uuid)
_after, _before = (bindparam(name, type_=_TIME) for name in ("ends_after", "starts_before"))
_shown, _read = (bindparam(name, type_=Integer) for name in ("shown", "read"))


def parameters(
    statuses: Sequence[Status],
    *,
    ends_after: datetime | None,
    starts_before: datetime | None,
    after: tuple[datetime, UUID] | None,
    **others: object,
) -> dict[str, Any]:
    """Return the parameters of a statement: the window, where to begin in each class of durations, and the others.

    Reading begins after a start and an id, if `after` is given. Without `statuses`, rows are not read by their status.
    """
    begin = ends_after or EARLIEST
    starts = [max((begin - longest(number), LOWEST_ID), after or (EARLIEST, LOWEST_ID)) for number in CLASSES]
    each = [(number, status, *starts[number]) for number in CLASSES for status in statuses or ("",)]
    columns = zip(*each, strict=True)
    asked = lists(_classes, **dict(zip(("number", "status", "start", "id"), map(list, columns), strict=True)))
    return others | asked | {"ends_after": begin, "starts_before": starts_before or LATEST}


@cache
def statement(filtered: frozenset[str], *, by_status: bool, judged: bool, owner: str | None = None) -> Select[Any]:
    """Return the statement for reservations of a window with certain values in the columns named in `filtered`.

    Its parameters are those that `parameters` makes, these values by the names of their columns, the wanted `status` if
    it is `judged`, and the limits of `listing.statement`. Neither bound of the window is included. With an `owner`, it
    reads what belongs to the owner only, as there.
    """
    conditions = [status_by_now == bindparam("status", type_=String)] if judged else []
    by = first_serving(OVERLAPPING_BY, filtered | {"status"} if by_status else filtered, owner)
    key = reservations.c.starts_at, reservations.c.id
    keys: Any = _first(by, key, reservations.c.ends_at, [*others(filtered, by, owner), *conditions])
    if "item_id" in filtered and owner is None:
        of_lines = (reservation_lines.c.starts_at, reservation_lines.c.reservation_id)
        lines = _first((reservation_lines.c.item_id,), of_lines, reservation_lines.c.ends_at, [])
        keys = union_all(keys, _matching(lines, [*equal(reservations, filtered - {"item_id"}), *conditions]))
    columns = keys.selected_columns
    page = keys.order_by(columns.starts_at, columns.id).limit(_shown).subquery("page")
    return within_bytes(complete(page, page.c.starts_at, page.c.id))


def _first(
    by: Sequence[Column[Any]],
    key: tuple[Column[Any], Column[Any]],
    ends_at: Column[Any],
    conditions: Sequence[ColumnElement[bool]],
) -> Select[Any]:
    """Read the first rows of each class, by the index that begins with these columns."""
    starts_at, row_id = key
    its_class = class_of(starts_at, ends_at)
    order = (*by, its_class, starts_at, row_id)
    is_last = func.row_number().over(order_by=order) == _read
    matches = and_(ends_at > _after, *conditions)
    # As in `listing`: the first column equals an array of one value, so only one index has the order asked for. The
    # others equal values, so PostgreSQL knows that the rows are in order of the first one, the start and the id.
    first, *further = (*by, its_class)
    columns = first.label("first"), starts_at.label("starts_at"), row_id.label("id")
    read = (
        select(*columns, matches.label("matches"), is_last.label("ends"))
        .where(
            first == any_(array([_wanted(first, its_class)])),
            *(column == _wanted(column, its_class) for column in further),
            starts_at.is_not(None),
            *are_given(by),
            starts_at < _before,
            tuple_(starts_at, row_id) > tuple_(_classes.c.start, _classes.c.id),
        )
        .order_by(*order)
        .limit(_read)
        .correlate(_classes)
        .lateral("read")
    )
    found = (
        select(read)
        .where(or_(read.c.matches, read.c.ends))
        .order_by(read.c.first, read.c.starts_at, read.c.id)
        .limit(_shown)
        .lateral("found")
    )
    keys = found.c.starts_at, found.c.id, found.c.matches, found.c.ends
    return select(*keys).select_from(_classes.join(found, true()))


def _wanted(column: ColumnElement[Any], its_class: ColumnElement[Any]) -> ColumnElement[Any]:
    if column is its_class:
        return _classes.c.number
    return _classes.c.status if column is reservations.c.status else value_of(column)


def _matching(lines: Select[Any], conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """Read the reservations of lines, and whether they match."""
    line = lines.subquery("line")
    one = select(and_(true(), *conditions).label("is_so")).where(reservations.c.id == line.c.id).limit(1).lateral("one")
    matches = and_(line.c.matches, one.c.is_so).label("matches")
    return select(line.c.starts_at, line.c.id, matches, line.c.ends).select_from(line.join(one, true()))
