"""The invariants of items."""

from sqlalchemy import Select, case, func, select

from domain.invariants.invariant import Invariant
from domain.items import items
from domain.reservations.lifecycle import CONSUMING, HOLDING
from domain.reservations.table import reservations


def _unbalanced() -> Select[str]:
    """The items whose stock is not the sum of what is available, held and consumed."""
    kept = case((reservations.c.status.in_([*HOLDING, *CONSUMING]), reservations.c.quantity), else_=0)
    used = select(reservations.c.item_id, func.sum(kept).label("quantity")).group_by(reservations.c.item_id).subquery()
    balanced = items.c.stock_quantity == items.c.available_quantity + func.coalesce(used.c.quantity, 0)
    return select(items.c.sku).outerjoin(used, used.c.item_id == items.c.id).where(~balanced)


INVARIANTS = (Invariant("every item's stock = available + held + consumed", _unbalanced()),)
