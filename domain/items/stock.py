"""Changing items: creating one, locking several, moving their stock."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from domain.items.table import MAX_QUANTITY, SKU_IS_UNIQUE, Item, Kind, are_named, by_kind, items
from domain.runtime.database import arrays, lists
from domain.runtime.database_errors import constraint_of
from domain.runtime.errors import InsufficientAvailableStock, Invalid, SkuTaken, UnknownItem
from domain.runtime.pipeline import Query, execute


def create(
    session: Session,
    *,
    sku: str,
    name: str,
    available_quantity: int = 0,
    venue: str | None = None,
    provider: str | None = None,
    **columns: object,
) -> Item:
    """Create an item with that many units in stock, or a calendar, with these columns. Raises SkuTaken.

    Calendars are created by `domain.calendars.create`, which checks what is given.
    """
    statement = insert(items).values(
        sku=sku,
        name=name,
        available_quantity=available_quantity,
        stock_quantity=available_quantity,
        venue=venue,
        provider=provider,
        **columns,
    )
    try:
        with session.begin_nested():
            row = session.execute(statement.returning(*items.c)).one()
    except IntegrityError as error:
        if constraint_of(error) == SKU_IS_UNIQUE:
            raise SkuTaken(sku) from error
        raise
    return Item(**row._mapping)


def lock(session: Session, names: Iterable[int | str]) -> Sequence[Item]:
    """Lock the items of these names until the transaction ends, in one order for everyone. A number is an id.

    NO KEY UPDATE excludes every other writer of stock, and leaves the foreign-key
    checks of inserts alone.
    """
    return [_item(row) for row in session.execute(_LOCK, by_kind(names))]


@dataclass(frozen=True, slots=True)
class Locked:
    """The items that could be locked at once, with the database's time, and those that another transaction has locked.

    There is no time if there is no item. `then` has the rows of the queries that were executed after that.
    """

    items: Sequence[Item]
    at: datetime | None
    elsewhere: Collection[int | str]
    then: Sequence[Sequence[Any]]


def lock_free(session: Session, names: Collection[int | str], then: Sequence[Query] = ()) -> Locked:
    """Lock those of the items that no other transaction has locked, without waiting for the others.

    The queries of `then` are executed after that, in the same round trip.
    """
    rows, *others = execute(session, [Query(_LOCK_FREE, by_kind(names)), *then])
    missing = set(names) - {name for row in rows for name in (row.id, row.sku)}
    existing = session.execute(_EXISTING, by_kind(missing)).all() if missing else ()
    return Locked(
        items=[_item(row) for row in rows],
        at=rows[0].at if rows else None,
        elsewhere=missing.intersection(name for row in existing for name in row),
        then=others,
    )


def _item(row: Sequence[Any]) -> Item:
    return Item(**{column.name: row[place] for place, column in enumerate(items.c)})


_named = are_named()
_EXISTING = select(items.c.id, items.c.sku).where(_named)
_LOCK = select(items).where(_named).order_by(items.c.id).with_for_update(key_share=True)
_LOCK_FREE = _LOCK.add_columns(func.clock_timestamp().label("at")).with_for_update(key_share=True, skip_locked=True)


def move(session: Session, changes: Mapping[int, int]) -> None:
    """Add to the available quantity of each item, by id: negative to take, positive to give back.

    The caller holds the locks.
    """
    session.execute(*move_query(changes))


def move_query(changes: Mapping[int, int]) -> Query:
    """Return the query that does what `move` does."""
    return Query(_MOVE, lists(_changes, item_id=list(changes), quantity=list(changes.values())))


_changes = arrays("changes", item_id=BigInteger, quantity=BigInteger)
_MOVE = (
    update(items)
    .values(available_quantity=items.c.available_quantity + _changes.c.quantity, updated_at=func.clock_timestamp())
    .where(items.c.id == _changes.c.item_id)
)


def amend(
    session: Session,
    reference: int | str,
    *,
    name: str | None = None,
    adjust_quantity_by: int = 0,
    precondition: Callable[[Item], None] | None = None,
    **columns: object,
) -> Item:
    """Rename an item, change its stock, its owners, or columns of a calendar. A number is its id, and text its sku.

    `precondition` is called with the locked item, and may raise a refusal. Calendars are changed by
    `domain.calendars.amend`, which checks what is given. Raises UnknownItem, InsufficientAvailableStock, Invalid.
    """
    locked = lock(session, [reference])
    if not locked:
        raise UnknownItem(reference)
    (item,) = locked
    if precondition is not None:
        precondition(item)
    if adjust_quantity_by and item.kind != Kind.STOCK:
        raise Invalid("adjust_quantity_by", f"{item.sku} is a calendar, which has no stock; change its capacity")
    if item.slot_starts_at and adjust_quantity_by not in (0, -1):
        # Others may have been published for its time meanwhile.
        raise Invalid("adjust_quantity_by", f"{item.sku} is a slot, of which -1 withdraws the unit for good")
    if item.slot_starts_at and columns.get("provider", item.provider) != item.provider:
        raise Invalid("provider", f"{item.sku} is a slot, which stays with its provider")
    if item.stock_quantity + adjust_quantity_by > MAX_QUANTITY:
        raise Invalid("adjust_quantity_by", f"there would be more than {MAX_QUANTITY} in stock")
    if item.available_quantity + adjust_quantity_by < 0:
        raise InsufficientAvailableStock(item.sku, adjust_quantity_by, item.available_quantity)
    changed = (
        update(items)
        .where(items.c.id == item.id)
        .values(
            name=name or item.name,
            available_quantity=item.available_quantity + adjust_quantity_by,
            stock_quantity=item.stock_quantity + adjust_quantity_by,
            updated_at=func.clock_timestamp(),
            **columns,
        )
    )
    return Item(**session.execute(changed.returning(*items.c)).one()._mapping)
