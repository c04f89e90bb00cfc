"""A used database in which every invariant holds, and how a test violates one."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text
from sqlalchemy.schema import AddConstraint

from domain import invariants, reservations
from domain.calendars.table import TIME_IS_EXCLUSIVE, time_is_exclusive
from domain.reservations import Claim
from domain.reservations.lifecycle import Status
from tests.support.builders import (
    Db,
    a_basket,
    a_calendar,
    a_hold,
    a_time_hold,
    an_item,
    an_overdue_hold,
    hours,
    let_lapse,
    reserve,
    routes_of,
)

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


def used_calendars(db: Db) -> Db:
    """Add calendars that are full for a while, with reservations of every kind."""
    rooms, lot = a_calendar(db, capacity=3, sku="ROOMS"), a_calendar(db, sku="LOT", buffer_after_seconds=1800)
    a_time_hold(db, rooms, hours(8, 12), note="morning", status=Status.CONFIRMED)
    a_time_hold(db, rooms, hours(12, 18), 3, note="afternoon")
    lapsed = a_time_hold(db, rooms, hours(8, 12), note="lapsed")
    a_time_hold(db, lot, hours(8, 9), note="buffer")
    both = Claim(rooms.id, 1, hours(10, 12)), Claim(lot.id, 1, hours(10, 12))
    a_time_hold(db, rooms, hours(10, 12), lines=both, note="two lines")
    for to, start in ((Status.COMPLETED, 20), (Status.NO_SHOW, 20), (Status.CANCELLED, 2)):
        one = a_time_hold(db, rooms, hours(start, start + 2), note=to, status=Status.CONFIRMED)
        with db.begin() as session:
            reservations.change(session, one.id, to, routes=routes_of(db))
    a_time_hold(db, rooms, hours(20, 22), note="no end", hold_for=None)
    a_time_hold(db, rooms, hours(22, 24), 3, note="block", status=Status.BLOCKED)
    let_lapse(db, lapsed.id)
    return db


@contextmanager
def with_constraint_put_back(db: Db) -> Iterator[None]:
    """Let the block do without the constraint of exclusive time."""
    try:
        yield
    finally:
        execute(
            db,
            "DELETE FROM calendar_occupancies",
            f"ALTER TABLE calendar_occupancies DROP CONSTRAINT IF EXISTS {TIME_IS_EXCLUSIVE}",
        )
        with db.begin() as session:
            session.execute(AddConstraint(time_is_exclusive, isolate_from_table=False))


def execute(db: Db, *statements: str) -> None:
    with db.begin() as session:
        for statement in statements:
            session.execute(text(statement))


def violations(db: Db) -> dict[str, int]:
    """Return the invariants that are violated, and how many violations each has."""
    with db.begin() as session:
        return {one.title: one.violations for one in invariants.examine(session) if one.violations}
