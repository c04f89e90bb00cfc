"""Explained refusals: what is in the way, and up to three alternatives that are free when they are taken at once."""

from datetime import timedelta
from random import Random

from sqlalchemy import text

from domain import calendars, items, reservations
from domain.calendars import Explanation, Period
from domain.idempotency import Answered
from domain.items import Item
from domain.runtime.errors import Alternative, NotFree
from tests.support.builders import Db, a_calendar, a_time_hold, a_time_request, hours, let_lapse, reserve, routes_of


def explained(db: Db, item: Item, period: Period, quantity: int = 1) -> Explanation:
    with db() as session:
        return calendars.explain(session, NotFree(item.sku, quantity, 0, period.start, period.end))


def other(item: Item, period: Period, quantity: int = 1) -> Alternative:
    return Alternative(item.sku, period.start, period.end, quantity)


def test_alternatives_that_are_taken_at_once_succeed(db: Db) -> None:
    """Rooms with buffers and opening hours, more and more of them taken, and every refusal is explained."""
    dice = Random(4)
    rooms = [
        a_calendar(db, capacity=2, venue="hotel", buffer_before_seconds=900, buffer_after_seconds=1_800),
        a_calendar(db, capacity=3, venue="hotel", opening_hours={"fri": ["06:00-23:00"], "sat": ["22:00-03:00"]}),
    ]
    taken = 0
    for _ in range(60):
        item, quantity = dice.choice(rooms), dice.randint(1, 2)
        start = dice.randint(24, 72) / 4
        period = hours(start, start + dice.choice([0.5, 1, 3, 13]))
        (outcome,) = reserve(db, a_time_request(item, period, quantity))
        if isinstance(outcome, NotFree):
            alternatives = explained(db, item, period, quantity).alternatives
            assert len(set(alternatives)) == len(alternatives) <= 3
            assert all(can_be_taken(db, one) for one in alternatives)
            taken += len(alternatives)

    assert taken > 20, "too little was refused"


def can_be_taken(db: Db, one: Alternative) -> bool:
    """Try it, and undo it: another client takes another alternative."""
    with db() as session:
        wanted = a_time_request(calendar(db, one.sku), Period(one.start, one.end), one.quantity)
        (outcome,) = reservations.reserve(session, [wanted], routes_of(db))
    return isinstance(outcome, Answered)


def calendar(db: Db, sku: str) -> Item:
    with db() as session:
        return items.get(session, sku)


def test_the_nearest_of_each_kind_comes_first(db: Db) -> None:
    double = a_calendar(db, capacity=3, venue="hotel")
    suite = a_calendar(db, capacity=2, venue="hotel")
    a_time_hold(db, double, hours(10, 12), 2)

    assert explained(db, double, hours(11, 13), 2).alternatives == [
        other(double, hours(12, 14), 2),
        other(suite, hours(11, 13), 2),
        other(double, hours(11, 13), 1),
    ]


def test_without_other_kinds_there_are_three_other_times(db: Db) -> None:
    room = a_calendar(db)
    a_time_hold(db, room, hours(10, 12))

    assert explained(db, room, hours(11, 12)).alternatives == [
        other(room, hours(12, 13)),
        other(room, hours(9, 10)),
        other(room, hours(13, 14)),
    ]


def test_other_items_are_of_the_same_venue_and_free(db: Db) -> None:
    room = a_calendar(db, venue="hotel")
    taken, buffered, closed, elsewhere = (
        a_calendar(db, venue="hotel"),
        a_calendar(db, venue="hotel", buffer_before_seconds=3_600),
        a_calendar(db, venue="hotel", opening_hours={"mon": ["09:00-17:00"]}),
        a_calendar(db, venue="another hotel"),
    )
    fitting = a_calendar(db, venue="hotel")
    for item in (room, taken):
        a_time_hold(db, item, hours(10, 12))
    a_time_hold(db, buffered, hours(8, 9.5))

    skus = {one.sku for one in explained(db, room, hours(10, 12)).alternatives}

    assert skus == {room.sku, fitting.sku}
    assert {taken.sku, buffered.sku, closed.sku, elsewhere.sku}.isdisjoint(skus)


def test_when_little_is_free_nearby_the_days_around_are_searched(db: Db) -> None:
    room = a_calendar(db)
    a_time_hold(db, room, hours(-100, 20))
    a_time_hold(db, room, hours(21, 100))

    assert explained(db, room, hours(11, 12)).alternatives == [
        other(room, hours(start, start + 1)) for start in (20, 100, 101)
    ]


def test_what_is_taken_beyond_the_searched_days_counts_within_the_buffers(db: Db) -> None:
    """Alternatives are searched from 325 hours before that midnight on, and need two hours before them."""
    room = a_calendar(db, buffer_before_seconds=7_200)
    a_time_hold(db, room, hours(-330, -326))
    a_time_hold(db, room, hours(-322, 400))

    assert explained(db, room, hours(11, 12)).alternatives == []


def test_no_alternative_begins_in_the_past(db: Db) -> None:
    room = a_calendar(db)
    with db() as session:
        begins = session.execute(text("SELECT date_trunc('second', now() + interval '1 hour')")).scalar_one()
    wanted = Period(begins, begins + timedelta(hours=2))
    a_time_hold(db, room, wanted)

    starts = [one.start for one in explained(db, room, wanted).alternatives]

    assert starts == [wanted.end, wanted.end + timedelta(hours=2), wanted.end + timedelta(hours=4)]


def test_what_is_over_has_no_other_times(db: Db) -> None:
    rooms = a_calendar(db, capacity=2)
    wanted = Period(hours(0, 1).start.replace(year=2020), hours(0, 1).end.replace(year=2020))
    a_time_hold(db, rooms, wanted)

    assert explained(db, rooms, wanted, 2).alternatives == [other(rooms, wanted, 1)]


def test_what_has_become_free_is_the_first_alternative(db: Db) -> None:
    rooms = a_calendar(db, capacity=2)

    found = explained(db, rooms, hours(10, 12), 1).alternatives

    assert found == [other(rooms, hours(start, start + 2)) for start in (10, 12, 14)]


def test_a_lapsed_hold_is_neither_in_the_way_nor_kept_free(db: Db) -> None:
    room = a_calendar(db)
    lapsed = a_time_hold(db, room, hours(8, 10))
    a_time_hold(db, room, hours(10, 12))
    let_lapse(db, lapsed.id)

    found = explained(db, room, hours(9, 11))

    assert [one.start for one in found.conflicts] == [hours(10, 12).start]
    assert found.alternatives[0] == other(room, hours(8, 10))
