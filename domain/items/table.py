"""Items: what can be reserved, and how much of it is there."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Integer,
    String,
    Table,
    UniqueConstraint,
    any_,
    bindparam,
    cast,
    column,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from domain.runtime.database import metadata
from domain.runtime.errors import Invalid, SkuTaken, StockCommitted, UnknownItem

#: What PostgreSQL's `integer` holds; more units of one thing than anyone stores.
MAX_QUANTITY = 2_147_483_647

#: What PostgreSQL's `bigint` holds.
MAX_ID = 2**63 - 1

items = Table(
    "items",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("sku", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("available_quantity", Integer, nullable=False, server_default="0"),
    Column("stock_quantity", Integer, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("sku"),
    CheckConstraint("available_quantity >= 0", name="never_oversold"),
    CheckConstraint("available_quantity <= stock_quantity", name="available_within_stock"),
    # A hot item is rewritten at each commit; with room on its page that touches no index.
    postgresql_with={"fillfactor": 50},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """`stock_quantity` is all there ever was put in; `available_quantity` what nobody holds or used up."""

    id: int
    sku: str
    name: str
    available_quantity: int
    stock_quantity: int
    created_at: datetime
    updated_at: datetime


def create(session: Session, *, sku: str, name: str, available_quantity: int) -> Item:
    """Create an item with that many units in stock. Raises SkuTaken."""
    statement = insert(items).values(
        sku=sku, name=name, available_quantity=available_quantity, stock_quantity=available_quantity
    )
    try:
        with session.begin_nested():
            row = session.execute(statement.returning(*items.c)).one()
    except IntegrityError as error:
        raise SkuTaken(sku) from error
    return Item(**row._mapping)


def get(session: Session, reference: int | str) -> Item:
    """Return the item of that id or sku; digits are an id before they are a sku. Raises UnknownItem."""
    wanted = or_(items.c.id == _as_id(reference), items.c.sku == str(reference))
    by_id_first = (items.c.id == _as_id(reference)).desc()
    row = session.execute(select(items).where(wanted).order_by(by_id_first).limit(1)).one_or_none()
    if row is None:
        raise UnknownItem(reference)
    return Item(**row._mapping)


def find(session: Session, *, after: int = 0, limit: int) -> Sequence[Item]:
    """Return up to `limit` items in order of id, from beyond the id `after`."""
    statement = select(items).where(items.c.id > after).order_by(items.c.id).limit(limit)
    return [Item(**row._mapping) for row in session.execute(statement)]


def lock(session: Session, ids: Collection[int], skus: Collection[str] = ()) -> Sequence[Item]:
    """Lock the items of these ids and skus until the transaction ends, in one order for everyone.

    NO KEY UPDATE excludes every other writer of stock, and leaves the foreign-key
    checks of inserts alone.
    """
    # A sku never changes, so what it stands for can be looked up before the lock.
    named = session.execute(_NAMED, {"skus": list(skus)}).scalars().all() if skus else ()
    return [Item(**row._mapping) for row in session.execute(_LOCK, {"ids": [*ids, *named]})]


_NAMED = select(items.c.id).where(items.c.sku == any_(cast(bindparam("skus"), ARRAY(String))))
_LOCK = (
    select(items)
    .where(items.c.id == any_(cast(bindparam("ids"), ARRAY(BigInteger))))
    .order_by(items.c.id)
    .with_for_update(key_share=True)
)


def move(session: Session, changes: Mapping[int, int]) -> None:
    """Add to the available quantity of each item, by id: negative to take, positive to give back.

    The caller holds the locks.
    """
    session.execute(_MOVE, {"ids": list(changes), "quantities": list(changes.values())})


_changes = (
    func.unnest(
        cast(bindparam("ids"), ARRAY(BigInteger)),
        cast(bindparam("quantities"), ARRAY(BigInteger)),
    )
    .table_valued(column("item_id", BigInteger), column("quantity", BigInteger))
    .render_derived("changes")
)
_MOVE = (
    update(items)
    .values(available_quantity=items.c.available_quantity + _changes.c.quantity, updated_at=func.clock_timestamp())
    .where(items.c.id == _changes.c.item_id)
)


def amend(session: Session, item_id: int, *, name: str | None = None, adjust_quantity_by: int = 0) -> Item:
    """Rename an item or change its stock. Raises UnknownItem, StockCommitted, Invalid."""
    held = lock(session, [item_id])
    if not held:
        raise UnknownItem(item_id)
    (item,) = held
    if item.stock_quantity + adjust_quantity_by > MAX_QUANTITY:
        raise Invalid("adjust_quantity_by", f"there would be more than {MAX_QUANTITY} in stock")
    if item.available_quantity + adjust_quantity_by < 0:
        raise StockCommitted(item.sku, adjust_quantity_by, item.available_quantity)
    changed = (
        update(items)
        .where(items.c.id == item_id)
        .values(
            name=name or item.name,
            available_quantity=item.available_quantity + adjust_quantity_by,
            stock_quantity=item.stock_quantity + adjust_quantity_by,
            updated_at=func.clock_timestamp(),
        )
    )
    return Item(**session.execute(changed.returning(*items.c)).one()._mapping)


def _as_id(reference: int | str) -> int:
    """Return the id that a reference spells, or 0, which is nobody's."""
    text = str(reference)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID)) else 0
    return number if number <= MAX_ID else 0
