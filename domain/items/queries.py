"""Reading items without changing them."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.items.table import Item, Kind, are_named, by_kind, items
from domain.runtime.errors import UnknownItem


def get(session: Session, reference: int | str) -> Item:
    """Return the item with that id or, if it is text, that sku. Raises UnknownItem."""
    wanted = items.c.id == reference if isinstance(reference, int) else items.c.sku == reference
    row = session.execute(select(items).where(wanted)).one_or_none()
    if row is None:
        raise UnknownItem(reference)
    return Item(**row._mapping)


def named(session: Session, names: Sequence[int | str]) -> list[Item]:
    """Return the items of these ids (numbers) and skus (text), in their order. Raises UnknownItem."""
    found: dict[int | str, Item] = {}
    for row in session.execute(_NAMED, by_kind(names)):
        item = Item(**row._mapping)
        found |= {item.id: item, item.sku: item}
    for name in names:
        if name not in found:
            raise UnknownItem(name)
    return [found[name] for name in names]


_NAMED = select(items).where(are_named())


def id_of(session: Session, sku: str) -> int | None:
    """Return the id of the item of that sku, or None if there is no such item."""
    return session.execute(select(items.c.id).where(items.c.sku == sku)).scalar_one_or_none()


def find(session: Session, *, after: int = 0, limit: int) -> Sequence[Item]:
    """Return up to `limit` items in order of id, from beyond the id `after`."""
    statement = select(items).where(items.c.id > after).order_by(items.c.id).limit(limit)
    return [Item(**row._mapping) for row in session.execute(statement)]


def of_venue(
    session: Session, venue: str, *, sku: str | None = None, but: int | None = None, limit: int
) -> Sequence[Item]:
    """Return up to `limit` calendars of a venue in order of id: the one of that sku, or all but the one with an id."""
    wanted = [items.c.venue == venue, items.c.kind == Kind.CALENDAR]
    wanted += [] if sku is None else [items.c.sku == sku]
    wanted += [] if but is None else [items.c.id != but]
    statement = select(items).where(*wanted).order_by(items.c.id).limit(limit)
    return [Item(**row._mapping) for row in session.execute(statement)]
