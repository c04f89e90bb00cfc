"""The lock of a calendar keeps requests from each other; the constraint keeps out whoever did not lock it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from domain import calendars, items, reservations
from domain.calendars import Period
from domain.calendars.table import occupancies
from domain.items import Item
from domain.reservations import Deferred, KeyRace, Reschedule
from domain.reservations.lifecycle import Status
from domain.runtime.database import lock_at_most
from domain.runtime.database_errors import is_lock_timeout
from domain.runtime.errors import NotFree
from tests.support.builders import Db, a_calendar, a_time_hold, a_time_request, hours, reserve, routes_of
from tests.support.invariants import violations
from tests.support.waiting import wait_until_blocked

#: As a second line of a reservation, which takes a time of a room.
TAKE = text("INSERT INTO calendar_occupancies VALUES (:id, 2, :item_id, 1, :start, :end, NULL, true)")


@pytest.mark.parametrize("capacity", [1, 2])
def test_a_calendar_that_another_request_has_locked_is_not_reserved(db: Db, capacity: int) -> None:
    rooms = a_calendar(db, capacity=capacity)

    with db.begin() as session:
        reservations.reserve(session, [a_time_request(rooms, hours(10, 12), capacity)], routes_of(db))
        (outcome,) = reserve(db, a_time_request(rooms, hours(14, 16), capacity))

    assert isinstance(outcome, Deferred)


def test_a_reschedule_waits_for_the_lock_of_the_calendar(db: Db) -> None:
    rooms = a_calendar(db, capacity=2)
    hold = a_time_hold(db, rooms, hours(8, 9))

    with db.begin() as session:
        items.lock(session, [rooms.id])
        with pytest.raises(OperationalError) as refused, db.begin() as another:
            lock_at_most(another, milliseconds=50)
            reservations.change(another, hold.id, Reschedule(hours(11, 13)), routes=routes_of(db))

    assert is_lock_timeout(refused.value)


def test_a_reschedule_that_has_waited_sees_what_was_taken_meanwhile(db: Db) -> None:
    rooms = a_calendar(db, capacity=2)
    hold = a_time_hold(db, rooms, hours(8, 9))

    with ThreadPoolExecutor(1) as threads:
        with db.begin() as session:
            items.lock(session, [rooms.id])
            moved = threads.submit(move, db, hold.id)
            wait_until_blocked(db)
            reservations.reserve(session, [a_time_request(rooms, hours(10, 12), 2)], routes_of(db))
        assert isinstance(moved.result(), NotFree)


@pytest.mark.parametrize(("capacity", "is_exclusive"), [(1, True), (2, False)])
def test_the_time_of_a_calendar_with_one_unit_is_exclusive(db: Db, capacity: int, is_exclusive: bool) -> None:
    a_time_hold(db, a_calendar(db, capacity=capacity), hours(10, 12))

    with db() as session:
        assert session.scalars(select(occupancies.c.is_exclusive)).all() == [is_exclusive]


def test_what_is_not_over_becomes_exclusive_when_the_capacity_becomes_1_whatever_it_overlapped(db: Db) -> None:
    room, ago = a_calendar(db), partial(hours_from, datetime.now(UTC))
    a_time_hold(db, room, ago(-3, -1))
    with db.begin() as session:
        calendars.amend(session, room.id, capacity=2)
    for period in (ago(-2, 1), ago(1, 2)):
        a_time_hold(db, room, period)

    with db.begin() as session:
        calendars.amend(session, room.id, capacity=1)

    with db() as session:
        by_time = select(occupancies.c.is_exclusive).order_by(occupancies.c.blocked_from)
        assert session.scalars(by_time).all() == [False, True, True]
    assert violations(db) == {}


def test_time_that_somebody_is_changing_keeps_nobody_waiting_until_it_is_exclusive(db: Db) -> None:
    rooms = a_calendar(db, capacity=2)
    hold = a_time_hold(db, rooms, hours(10, 12))

    with db.begin() as session:
        reservations.change(session, hold.id, Status.CONFIRMED, routes=routes_of(db))
        with pytest.raises(OperationalError) as refused, db.begin() as another:
            another.execute(text("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = '1s'"))
            calendars.amend(another, rooms.id, capacity=1)

    assert is_lock_timeout(refused.value)


def hours_from(moment: datetime, start: float, end: float) -> Period:
    return Period(moment + timedelta(hours=start), moment + timedelta(hours=end))


def test_a_request_for_time_that_was_taken_without_a_lock_is_decided_again(db: Db) -> None:
    room = a_calendar(db)

    with pytest.raises(KeyRace) as raced:
        ask_while_it_is_taken(db, room, lambda: reserve(db, a_time_request(room, hours(11, 13))))

    assert raced.value.places == [0]
    (refused,) = reserve(db, a_time_request(room, hours(11, 13)))
    assert isinstance(refused, NotFree)


def test_a_reschedule_to_time_that_was_taken_without_a_lock_is_refused(db: Db) -> None:
    room = a_calendar(db)
    hold = a_time_hold(db, room, hours(8, 9))

    assert isinstance(ask_while_it_is_taken(db, room, lambda: move(db, hold.id)), NotFree)


def ask_while_it_is_taken(db: Db, room: Item, ask: Callable[[], object]) -> object:
    """Ask for the time from 10 to 12 o'clock, which another transaction takes and commits meanwhile."""
    other = a_time_hold(db, room, hours(16, 17))
    time = hours(10, 12)
    with ThreadPoolExecutor(1) as threads:
        with db.begin() as session:
            session.execute(TAKE, {"id": other.id, "item_id": room.id, "start": time.start, "end": time.end})
            asked = threads.submit(ask)
            wait_until_blocked(db)
        return asked.result()


def move(db: Db, reservation_id: UUID) -> object:
    with db.begin() as session:
        return reservations.change(session, reservation_id, Reschedule(hours(11, 13)), routes=routes_of(db))
