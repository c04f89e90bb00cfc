"""A used database in which every invariant holds, and how a test violates one."""

from sqlalchemy import text

from domain import invariants, reservations
from domain.reservations.lifecycle import Status
from tests.support.builders import Db, a_basket, a_hold, an_item, an_overdue_hold, reserve, routes_of

#: The title of an invariant, and a statement that makes the used database violate it.
Violation = tuple[str, str]


def a_used_database(db: Db) -> Db:
    """Add holds, one of them overdue, a completed and a cancelled reservation, two baskets, and their events."""
    item, breakfast = an_item(db, quantity=50, sku="ROOM-101"), an_item(db, quantity=50)
    completed, cancelled, *_ = (a_hold(db, item, quantity=2) for _ in range(4))
    with db.begin() as session:
        for reservation, status in (
            (completed, Status.CONFIRMED),
            (completed, Status.COMPLETED),
            (cancelled, Status.CANCELLED),
        ):
            reservations.change(session, reservation.id, status, routes=routes_of(db))
    an_overdue_hold(db, item)
    reserve(db, *(a_basket((item, 1), (breakfast, 2)) for _ in range(2)))
    with db.begin() as session:
        ended = reservations.find(session, reservations.Filter(item_id=breakfast.id), limit=1).reservations[0]
        reservations.change(session, ended.id, Status.CANCELLED, routes=routes_of(db))
    return db


def execute(db: Db, *statements: str) -> None:
    with db.begin() as session:
        for statement in statements:
            session.execute(text(statement))


def violations(db: Db) -> dict[str, int]:
    """Return the invariants that are violated, and how many violations each has."""
    with db.begin() as session:
        return {one.title: one.violations for one in invariants.examine(session) if one.violations}
