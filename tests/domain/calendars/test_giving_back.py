"""Giving a part of a reservation back: the rest stays as it is, whatever the calendar is like by now."""

from typing import Any

from domain import calendars
from domain.items import Item
from domain.reservations import Claim, Reschedule, Reservation
from tests.domain.calendars.test_reserve import accepted, change
from tests.support.builders import Db, a_calendar, a_time_hold, hours
from tests.support.invariants import violations

HALF_AN_HOUR = 30 * 60


def amended(db: Db, item: Item, **settings: Any) -> None:
    with db.begin() as session:
        calendars.amend(session, item.id, **settings)


def test_units_are_given_back_though_the_calendar_is_closed_then_by_now(db: Db) -> None:
    rooms = a_calendar(db, capacity=3)
    hold = a_time_hold(db, rooms, hours(10, 12), 3)
    amended(db, rooms, opening_hours={"fri": ["13:00-17:00"]})

    smaller = change(db, hold, Reschedule(quantity=1))

    assert isinstance(smaller, Reservation) and (smaller.quantity, smaller.period) == (1, hours(10, 12))
    amended(db, rooms, opening_hours=None)
    assert not accepted(db, rooms, hours(11, 12), 3)
    assert accepted(db, rooms, hours(11, 12), 2)
    assert violations(db) == {}


def test_time_is_given_back_though_the_buffers_are_longer_by_now(db: Db) -> None:
    """What remains keeps the buffers that it was made with: longer ones would reach into the next reservation."""
    room = a_calendar(db, buffer_after_seconds=HALF_AN_HOUR)
    hold = a_time_hold(db, room, hours(8, 12))
    a_time_hold(db, room, hours(12.5, 14))
    amended(db, room, buffer_after_seconds=3 * HALF_AN_HOUR)

    shorter = change(db, hold, Reschedule(hours(9, 11.5)))

    assert isinstance(shorter, Reservation) and shorter.period == hours(9, 11.5)
    amended(db, room, buffer_after_seconds=0)
    assert accepted(db, room, hours(8, 9))
    assert not accepted(db, room, hours(11.75, 12.5))
    assert accepted(db, room, hours(12, 12.5))
    assert violations(db) == {}


def test_time_of_all_lines_is_given_back(db: Db) -> None:
    rooms, lot = a_calendar(db, capacity=2), a_calendar(db)
    both = (Claim(rooms.id, 2, hours(10, 14)), Claim(lot.id, 1, hours(10, 14)))
    hold = a_time_hold(db, rooms, hours(10, 14), lines=both)

    change(db, hold, Reschedule(hours(12, 14)))

    for item, quantity in ((rooms, 2), (lot, 1)):
        assert not accepted(db, item, hours(11.5, 12.5), quantity)
        assert accepted(db, item, hours(10, 12), quantity)
    assert violations(db) == {}


def test_a_shorter_time_with_more_units_is_checked(db: Db) -> None:
    rooms = a_calendar(db, capacity=3)
    hold = a_time_hold(db, rooms, hours(10, 14), 1)
    a_time_hold(db, rooms, hours(10, 11), 2)

    refused = change(db, hold, Reschedule(hours(10, 12), 2))
    moved = change(db, hold, Reschedule(hours(11, 12), 3))

    assert not isinstance(refused, Reservation)
    assert isinstance(moved, Reservation) and (moved.period, moved.quantity) == (hours(11, 12), 3)


def test_the_lines_of_a_shorter_reservation_end_with_it(db: Db) -> None:
    rooms, lot = a_calendar(db), a_calendar(db)
    both = (Claim(rooms.id, 1, hours(10, 14)), Claim(lot.id, 1, hours(10, 14)))
    hold = a_time_hold(db, rooms, hours(10, 14), lines=both)

    change(db, hold, Reschedule(hours(10, 12)))

    assert violations(db) == {}
