"""The invariants of items."""

from sqlalchemy import Select, func, select, union_all

from domain.invariants.invariant import Invariant
from domain.items import Kind, items
from domain.reservations.lifecycle import CONSUMING, HOLDING
from domain.reservations.table import reservation_lines, reservations


def _unbalanced() -> Select[str]:
    """The items whose stock is not the sum of what is available, held and consumed."""
    is_kept = reservations.c.status.in_([*HOLDING, *CONSUMING])
    further = reservation_lines.join(reservations, reservations.c.id == reservation_lines.c.reservation_id)
    kept = union_all(
        select(reservations.c.item_id, reservations.c.quantity).where(is_kept),
        select(reservation_lines.c.item_id, reservation_lines.c.quantity).select_from(further).where(is_kept),
    ).subquery()
    used = select(kept.c.item_id, func.sum(kept.c.quantity).label("quantity")).group_by(kept.c.item_id).subquery()
    balanced = items.c.stock_quantity == items.c.available_quantity + func.coalesce(used.c.quantity, 0)
    return (
        select(items.c.sku).outerjoin(used, used.c.item_id == items.c.id).where(items.c.kind == Kind.STOCK, ~balanced)
    )


INVARIANTS = (
    Invariant(
        "every item's stock = available + held + consumed",
        _unbalanced(),
        misses="Numbers that are wrong together, such as a reservation that was deleted and its units given back.",
    ),
)
