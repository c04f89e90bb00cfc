"""What of an item is in the audit: how much of it somebody makes or changes by hand, and to whom it belongs."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from domain.access import audit
from domain.items.table import Item, Kind

#: The fields that change how much of an item there is.
QUANTITIES = ("adjust_quantity_by", "capacity")

#: The fields that say who has rights to an item, and to its reservations.
OWNERS = ("venue", "provider")


def audit_creation(session: Session, item: Item, *, who: str) -> None:
    """Record who made an item of which there is something, in the transaction in which it is made."""
    quantity = "available_quantity" if item.kind == Kind.STOCK else "capacity"
    _audit_quantities(session, item, {quantity: getattr(item, quantity)}, who)


def audit_change(session: Session, before: Item, item: Item, changes: Mapping[str, Any], *, who: str) -> None:
    """Record who changed how much there is of an item, or whose it is, in the transaction of the change."""
    _audit_quantities(session, item, {name: changes.get(name) for name in QUANTITIES}, who)
    _audit_owners(session, before, item, who)


def _audit_quantities(session: Session, item: Item, quantities: Mapping[str, int | None], who: str) -> None:
    if given := {name: str(value) for name, value in quantities.items() if value}:
        audit.record(session, "item.stock", who=who, subject=f"item:{item.id}", selection=given, rows=1)


def _audit_owners(session: Session, before: Item, item: Item, who: str) -> None:
    owners: dict[str, str | None] = {}
    for name in OWNERS:
        if getattr(before, name) != getattr(item, name):
            owners |= {f"{name}_before": getattr(before, name), name: getattr(item, name)}
    if owners:
        given = {name: value for name, value in owners.items() if value is not None}
        audit.record(session, "item.owner", who=who, subject=f"item:{item.id}", selection=given, rows=1)
