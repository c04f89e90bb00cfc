"""Reading items without changing them."""

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from domain.items.table import MAX_ID, Item, items
from domain.runtime.errors import UnknownItem


def get(session: Session, reference: int | str) -> Item:
    """Return the item of that id or sku; digits are an id before they are a sku. Raises UnknownItem."""
    wanted = or_(items.c.id == _as_id(reference), items.c.sku == str(reference))
    by_id_first = (items.c.id == _as_id(reference)).desc()
    row = session.execute(select(items).where(wanted).order_by(by_id_first).limit(1)).one_or_none()
    if row is None:
        raise UnknownItem(reference)
    return Item(**row._mapping)


def id_of(session: Session, sku: str) -> int | None:
    """Return the id of the item of that sku, or None if there is no such item."""
    return session.execute(select(items.c.id).where(items.c.sku == sku)).scalar_one_or_none()


def find(session: Session, *, after: int = 0, limit: int) -> Sequence[Item]:
    """Return up to `limit` items in order of id, from beyond the id `after`."""
    statement = select(items).where(items.c.id > after).order_by(items.c.id).limit(limit)
    return [Item(**row._mapping) for row in session.execute(statement)]


def _as_id(reference: int | str) -> int:
    """Return the id that a reference spells, or 0, which is nobody's."""
    text = str(reference)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID)) else 0
    return number if number <= MAX_ID else 0
