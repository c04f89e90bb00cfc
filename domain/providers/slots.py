"""Slots: publishing them, and the list of those of a provider."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from domain import items
from domain.calendars.periods import Period
from domain.items import Item
from domain.runtime.database import now
from domain.runtime.errors import Invalid, SlotsOverlap, UnknownSlot

#: The longest slot. So those that overlap another one begin not long before it, and an index finds them.
MAX_SLOT = timedelta(days=31)


class After(NamedTuple):
    """The slot after which a page of the list begins: its start, and the id of its item."""

    start: datetime
    item_id: int


def slot_of(item: Item) -> Period | None:
    """Return the period of an item that is a slot, or None."""
    if item.slot_starts_at is None or item.slot_ends_at is None:
        return None
    return Period(item.slot_starts_at, item.slot_ends_at)


def publish(
    session: Session, provider: str, slot_id: str, period: Period, *, name: str | None = None, may_overlap: bool = False
) -> Item:
    """Offer a slot of a provider. Raises Invalid, SkuTaken, and SlotsOverlap unless it `may_overlap` others."""
    if period.duration > MAX_SLOT:
        raise Invalid("end", f"a slot lasts {MAX_SLOT.days} days at most")
    # One after another for each provider: two that are published at once would not see each other.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"slots {provider}", 0))))
    if period.start <= now(session):
        raise Invalid("start", "it is in the past")
    if not may_overlap:
        _require_no_overlap(session, provider, period)
    return items.create(
        session,
        sku=slot_id,
        name=name or f"Slot of {provider}",
        available_quantity=1,
        provider=provider,
        slot_starts_at=period.start,
        slot_ends_at=period.end,
    )


def _require_no_overlap(session: Session, provider: str, period: Period) -> None:
    table = items.items
    overlapping = (
        select(table.c.sku, table.c.slot_starts_at, table.c.slot_ends_at)
        .where(
            table.c.provider == provider,
            table.c.slot_starts_at > period.start - MAX_SLOT,
            table.c.slot_starts_at < period.end,
            table.c.slot_ends_at > period.start,
            # One that was withdrawn is in nobody's way.
            table.c.stock_quantity > 0,
        )
        .order_by(table.c.slot_starts_at)
        .limit(1)
    )
    if found := session.execute(overlapping).one_or_none():
        raise SlotsOverlap(*found)


def get(session: Session, provider: str, slot_id: str) -> Item:
    """Return a slot of a provider. Raises UnknownSlot."""
    table = items.items
    row = session.execute(
        select(table).where(table.c.sku == slot_id, table.c.provider == provider, table.c.slot_starts_at.is_not(None))
    ).one_or_none()
    if row is None:
        raise UnknownSlot(slot_id)
    return Item(**row._mapping)


def find(
    session: Session,
    provider: str,
    *,
    since: datetime | None = None,
    before: datetime | None = None,
    after: After | None = None,
    limit: int,
) -> Sequence[Item]:
    """Return up to `limit` slots of a provider in order of start and id, which start within these bounds, half-open."""
    table = items.items
    wanted = [table.c.provider == provider, table.c.slot_starts_at.is_not(None), table.c.stock_quantity > 0]
    if since is not None:
        wanted.append(table.c.slot_starts_at >= since)
    if before is not None:
        wanted.append(table.c.slot_starts_at < before)
    if after is not None:
        wanted.append(tuple_(table.c.slot_starts_at, table.c.id) > after)
    statement = select(table).where(*wanted).order_by(table.c.slot_starts_at, table.c.id).limit(limit)
    return [Item(**row._mapping) for row in session.execute(statement)]
