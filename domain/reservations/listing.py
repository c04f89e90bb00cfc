"""The statement that reads a page of reservations: about as many rows as it shows, however many others there are.

PostgreSQL's statistics play no part in it. Whatever they say, one index only has the order that a part of the statement
asks for, and `READ_IN_INDEX_ORDER` leaves no other way of reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import add
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Integer,
    Select,
    String,
    and_,
    any_,
    bindparam,
    false,
    func,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import array

from domain.items import items
from domain.reservations.lifecycle import Status
from domain.reservations.table import (
    FIELDS,
    LISTED_BY,
    are_given,
    further_lines,
    is_overdue,
    metadata_of,
    reservation_lines,
    reservations,
    status_by_now,
)
from domain.runtime.database import arrays, lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which rows are read: those whose status in the table is one of `statuses`.

    With `judged`, those are shown whose status by now is the wanted one. With `overdue`, overdue holds are shown too.
    """

    statuses: tuple[Status, ...]
    judged: bool = False
    overdue: bool = False


#: Reservations of every status.
EVERY = Scope(statuses=tuple(Status))

_statuses = arrays("statuses", status=String)

_id, _status = reservations.c.id, reservations.c.status
_lower, _upper = (bindparam(name, type_=_id.type) for name in ("lower", "upper"))
_shown, _read, _most_bytes = (bindparam(name, type_=Integer) for name in ("shown", "read", "most_bytes"))


def parameters(scope: Scope, **others: object) -> dict[str, Any]:
    """Return the parameters of a statement, see there."""
    return others | lists(_statuses, status=list(scope.statuses))


@cache
def statement(filtered: frozenset[str], scope: Scope, owner: str | None = None) -> Select[Any]:
    """Return the statement for reservations with certain values in the columns named in `filtered`.

    With an `owner`, one of these columns, it reads nothing but what belongs to the owner: no row of others is counted,
    passed over, or the one that ends the page. The `overdue` of a scope are not for such a list.

    Its parameters are these values by the names of their columns, the wanted `status`, the bounds of the ids (`lower`
    is included, `upper` is not), and its limits: how many reservations are `shown`, how many rows of a status are
    `read` to find them where no index knows which ones match, and after how many bytes of texts, `most_bytes`, the
    page ends.

    A row that does not match is not to be shown. After a row that `ends`, there may be more that were not read.
    """
    keys: Select[Any] | CompoundSelect[Any]
    keys = _newest_by_status(filtered, scope, owner) if filtered or scope != EVERY else _newest_of_all()
    if scope.overdue:
        keys = union_all(keys, _overdue(filtered))
    if "item_id" in filtered and owner is None:
        keys = union_all(keys, _newest_baskets(filtered, scope))
    page = keys.order_by(keys.selected_columns.id.desc()).limit(_shown).subquery("page")
    return within_bytes(complete(page, page.c.id.desc()))


def _newest_of_all() -> Select[Any]:
    return select(_id, true().label("matches"), false().label("ends")).where(_id < _upper, _id >= _lower)


def _newest_by_status(filtered: frozenset[str], scope: Scope, owner: str | None) -> Select[Any]:
    """Read the newest reservations of each status, by the index that begins with the most of the filtered columns."""
    by = first_serving(LISTED_BY, filtered, owner)
    conditions = others(filtered, by, owner)
    if scope.judged:
        conditions.append(status_by_now == bindparam("status", type_=String))
    newest = _newest(by, conditions)
    return select(newest.c.id, newest.c.matches, newest.c.ends).select_from(_statuses.join(newest, true()))


def _newest(by: Sequence[Column[Any]], conditions: Sequence[ColumnElement[bool]]) -> FromClause:
    """Read the newest reservations of one status that match the conditions."""
    key = (*by, _status, _id)
    newest_first = [column.desc() for column in key]
    is_last = func.row_number().over(order_by=newest_first) == _read
    read = (
        select(*key, and_(true(), *conditions).label("matches"), (is_last if conditions else false()).label("ends"))
        .where(*_from_to(by))
        .order_by(*newest_first)
        .limit(_read if conditions else _shown)
        .correlate(_statuses)
        .lateral("read")
    )
    return (
        select(read.c.id, read.c.matches, read.c.ends)
        # All that was read has the status. PostgreSQL has to know it, or it sorts all rows to take the first ones.
        .where(read.c.status == _statuses.c.status, or_(read.c.matches, read.c.ends))
        .order_by(*(read.c[column.name].desc() for column in key))
        .limit(_shown)
        .lateral("newest")
    )


def _from_to(by: Sequence[Column[Any]]) -> list[ColumnElement[bool]]:
    """Bound the reading of an index by one status and by the wanted ids.

    The first column of the index is equal to an array of one value. That is the same as an equation, except that with
    an equation the planner would take every index to have the order asked for, which differs in this column only.
    """
    first, *others = (*by, _status)
    conditions = [first == any_(array([_wanted(first)])), *_below(others)]
    return [*conditions, *are_given(by)]


def _below(columns: Sequence[Column[Any]]) -> list[ColumnElement[bool]]:
    """Bound the columns that come after the first one, and the id.

    Two of them can't be equal to values for the same reason. There the reading is between two rows of values, which
    differ in the id only.
    """
    if len(columns) < 2:
        return [*(column == _wanted(column) for column in columns), _id < _upper, _id >= _lower]
    values = [_wanted(column) for column in columns]
    return [tuple_(*columns, _id) < tuple_(*values, _upper), tuple_(*columns, _id) >= tuple_(*values, _lower)]


def _wanted(column: Column[Any]) -> ColumnElement[Any]:
    return _statuses.c.status if column is _status else value_of(column)


def _overdue(filtered: frozenset[str]) -> Select[Any]:
    """Read all overdue holds by the time of their expiry, and of them those that are wanted."""
    columns = reservations.c["id", "item_id", "guest_id", "venue", "provider", "source"]
    overdue = select(*columns).where(is_overdue).order_by(reservations.c.expires_at).subquery("overdue")
    wanted = overdue.c.id < _upper, overdue.c.id >= _lower, *equal(overdue, filtered)
    return select(overdue.c.id, true().label("matches"), false().label("ends")).where(*wanted)


def _newest_baskets(filtered: frozenset[str], scope: Scope) -> Select[Any]:
    """Read the newest reservations that have the wanted item in a line after the first one."""
    key = reservation_lines.c.item_id, reservation_lines.c.reservation_id
    newest_first = [column.desc() for column in key]
    line = (
        select(key[1].label("id"), (func.row_number().over(order_by=newest_first) == _read).label("ends"))
        .where(key[0] == any_(array([value_of(key[0])])), key[1] < _upper, key[1] >= _lower)
        .order_by(*newest_first)
        .limit(_read)
        .subquery("line")
    )
    conditions = equal(reservations, filtered.difference({"item_id"}))
    if scope != EVERY:
        conditions.append(status_by_now == bindparam("status", type_=String))
    matches = and_(true(), *conditions).label("matches")
    basket = select(matches).where(_id == line.c.id).limit(1).lateral("basket")
    keys = select(line.c.id, basket.c.matches, line.c.ends).select_from(line.join(basket, true()))
    return keys.where(or_(basket.c.matches, line.c.ends))


def first_serving(
    indexes: Sequence[Sequence[Column[Any]]], filtered: frozenset[str], owner: str | None
) -> Sequence[Column[Any]]:
    """Return the columns of the first index that has filtered columns only.

    The list of an owner is read by an index that begins with the owner, so that reservations of nobody else are in the
    way. It is not read by the item: an index of reservations knows the first item of a basket only, and the index of
    the further ones does not know the owner.
    """
    if owner is None:
        return next(one for one in indexes if filtered.issuperset(column.name for column in one))
    usable = filtered - {"item_id"}
    own = (one for one in indexes if one and one[0].name == owner)
    return next(one for one in own if usable.issuperset(column.name for column in one))


def others(filtered: frozenset[str], by: Sequence[Column[Any]], owner: str | None) -> list[ColumnElement[bool]]:
    """Return the conditions for what is filtered and not in the columns of an index."""
    rest = filtered.difference(column.name for column in by)
    if owner is None or "item_id" not in rest:
        return equal(reservations, rest)
    return [*equal(reservations, rest - {"item_id"}), has_item(value_of(reservations.c.item_id))]


def equal(table: FromClause, names: frozenset[str]) -> list[ColumnElement[bool]]:
    """Return the conditions that these columns have the values of the parameters of their names."""
    return [table.c[name] == value_of(table.c[name]) for name in sorted(names)]


def value_of(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the parameter with the name of a column."""
    return bindparam(column.key, type_=column.type)


def has_item(item_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition that an item is in any line of a reservation.

    PostgreSQL may answer an EXISTS by reading the lines that all reservations have of the item, but not this subquery.
    """
    is_further = reservation_lines.c.reservation_id == _id, reservation_lines.c.item_id == item_id
    further = select(true()).where(*is_further).limit(1).correlate(reservations).scalar_subquery()
    return or_(
        reservations.c.item_id == item_id,
        and_(reservations.c.line_count > 1, func.coalesce(further, false())),
    )


def complete(page: FromClause, *order: ColumnElement[Any]) -> FromClause:
    """Read the reservations of a page, and add up the bytes of their texts in this order.

    The metadata is read only where it is shown: its size is known without that.
    """
    sku = select(items.c.sku).where(items.c.id == reservations.c.item_id).scalar_subquery()
    texts = metadata_of(reservations.c), reservations.c.note, reservations.c.cancellation_reason
    size = reduce(add, (func.coalesce(func.octet_length(text), 0) for text in texts))
    fields = (field for field in FIELDS if field not in (_id, _status))
    kept = reservations.c["metadata_text", "metadata"]
    row = (
        select(*fields, *kept, further_lines, status_by_now.label("status"), sku.label("sku"), size.label("bytes"))
        .where(_id == page.c.id)
        .limit(1)
        .lateral("reservation")
    )
    place = func.row_number().over(order_by=order).label("place")
    total = func.sum(row.c.bytes).over(order_by=order, rows=(None, 0)).label("total_bytes")
    columns = (column for column in row.c if column.name not in page.c)
    return select(*page.c, *columns, place, total).select_from(page.join(row, true())).subquery("complete")


def within_bytes(complete: FromClause) -> Select[Any]:
    """Return the statement for the reservations of a page, in its order, until their texts have too many bytes."""
    shown = (column for column in complete.c if column.name not in ("metadata_text", "metadata"))
    begins_within = complete.c.total_bytes - complete.c.bytes < _most_bytes
    return select(*shown, metadata_of(complete.c)).where(begins_within).order_by(complete.c.place)
