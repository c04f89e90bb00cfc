"""Availability: what it says is free can be reserved, and nothing more, whatever was reserved before."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from domain import calendars, reservations
from domain.calendars import availability as module
from domain.calendars.availability import MAX_STARTS, MAX_WINDOW, MINUTE, Availability, Starts, snapshot
from domain.calendars.free_time import Step
from domain.calendars.periods import Period
from domain.idempotency import Answered
from domain.items import Item
from domain.reservations.lifecycle import Status
from domain.runtime.database import connect, sessions
from domain.runtime.errors import Invalid, NotFree, OutsideOpeningHours
from domain.runtime.settings import Settings
from tests.support.builders import (
    Db,
    a_calendar,
    a_time_hold,
    a_time_request,
    an_item,
    hours,
    let_lapse,
    reserve,
    routes_of,
)

HOUR = timedelta(hours=1)
DAY = hours(0, 24)


def of_the_day(db: Db, *items: Item, window: Period = DAY, wanted: Starts | None = None) -> list[Availability]:
    with db() as session:
        return snapshot(session, [item.id for item in items], window, wanted).availability(wanted)


def free(step: Step) -> tuple[float, float, int]:
    """Return a step with hours instead of times."""
    return (step.start - DAY.start) / HOUR, (step.end - DAY.start) / HOUR, step.free


def steps(db: Db, item: Item, window: Period = DAY) -> list[tuple[float, float, int]]:
    (found,) = of_the_day(db, item, window=window)
    return [free(step) for step in found.steps]


def test_what_is_not_reserved_is_free(db: Db) -> None:
    rooms = a_calendar(db, capacity=3)
    a_time_hold(db, rooms, hours(8, 12), 2)
    a_time_hold(db, rooms, hours(10, 14), 1, status=Status.CONFIRMED)
    a_time_hold(db, rooms, hours(14, 15), 3, status=Status.BLOCKED, hold_for=None)

    assert steps(db, rooms) == [(0, 8, 3), (8, 10, 1), (10, 12, 0), (12, 14, 2), (14, 15, 0), (15, 24, 3)]
    assert steps(db, rooms, hours(9, 11)) == [(9, 10, 1), (10, 11, 0)]


def test_the_time_of_a_hold_is_free_when_it_lapses_and_of_a_reservation_when_it_is_cancelled(db: Db) -> None:
    rooms = a_calendar(db, capacity=2)
    lapsed, cancelled = a_time_hold(db, rooms, hours(8, 12)), a_time_hold(db, rooms, hours(8, 12))
    assert steps(db, rooms, hours(8, 12)) == [(8, 12, 0)]

    let_lapse(db, lapsed.id)
    with db.begin() as session:
        reservations.change(session, cancelled.id, Status.CANCELLED, routes=routes_of(db))

    assert steps(db, rooms, hours(8, 12)) == [(8, 12, 2)]


def test_reservations_are_read_whether_or_not_the_capacity_was_one_when_they_were_made(db: Db) -> None:
    room = a_calendar(db, capacity=1)
    a_time_hold(db, room, hours(8, 12))
    with db.begin() as session:
        room = calendars.amend(session, room.id, capacity=3)
    a_time_hold(db, room, hours(10, 14))

    assert steps(db, room, hours(8, 14)) == [(8, 10, 2), (10, 12, 1), (12, 14, 2)]


def test_what_lies_around_the_window_counts_within_the_buffers(db: Db) -> None:
    room = a_calendar(db, buffer_before_seconds=3_600, buffer_after_seconds=7_200)
    a_time_hold(db, room, hours(5, 6))

    # It keeps the room until 8, and the next reservation needs it for an hour before it begins.
    assert steps(db, room, hours(8, 12)) == [(8, 9, 0), (9, 12, 1)]
    # A reservation that ends at 2 keeps the room until 4, from when on the other one needs it.
    assert steps(db, room, hours(0, 4)) == [(0, 2, 1), (2, 4, 0)]


def test_many_calendars_are_read_at_once_each_in_its_own_time(db: Db) -> None:
    room, lot, empty = a_calendar(db), a_calendar(db, capacity=5), a_calendar(db, capacity=7)
    a_time_hold(db, room, hours(8, 12))
    a_time_hold(db, lot, hours(9, 10), 4)

    found = of_the_day(db, lot, empty, room, window=hours(8, 12))

    assert [(one.item.id, [free(step) for step in one.steps]) for one in found] == [
        (lot.id, [(8, 9, 5), (9, 10, 1), (10, 12, 5)]),
        (empty.id, [(8, 12, 7)]),
        (room.id, [(8, 12, 0)]),
    ]
    assert of_the_day(db) == []


@pytest.mark.parametrize("year", [1970, 1999, 2199])
def test_what_is_taken_is_read_to_the_microsecond(db: Db, year: int) -> None:
    room = a_calendar(db)
    start = datetime(year, 6, 1, 8, 0, 0, 1, tzinfo=UTC)
    taken, around = Period(start, start + HOUR), Period(start - HOUR, start + 2 * HOUR)
    a_time_hold(db, room, taken, status=Status.CONFIRMED)

    (found,) = of_the_day(db, room, window=around)

    assert found.steps == [
        Step(around.start, taken.start, 1),
        Step(taken.start, taken.end, 0),
        Step(taken.end, around.end, 1),
    ]


def test_snapshots_have_the_same_mark_only_if_nothing_differs(db: Db) -> None:
    room, other = a_calendar(db), a_calendar(db)

    def mark(*items: Item, window: Period = DAY) -> bytes:
        with db() as session:
            return snapshot(session, [item.id for item in items], window).mark

    assert mark(room) == mark(room)
    assert len({mark(room), mark(other), mark(room, other), mark(other, room), mark(room, window=hours(0, 23))}) == 5
    before = mark(room)
    hold = a_time_hold(db, room, hours(8, 12))
    assert mark(room) != before
    let_lapse(db, hold.id)
    assert mark(room) == before


def test_free_starts_are_those_at_which_a_reservation_fits(db: Db) -> None:
    rooms = a_calendar(db, capacity=2, opening_hours={"fri": ["08:00-18:00"]})
    a_time_hold(db, rooms, hours(10, 12), 1)

    (found,) = of_the_day(db, rooms, wanted=Starts(2, 3 * HOUR, HOUR))

    assert [(start - DAY.start) / HOUR for start in found.starts or ()] == [12, 13, 14, 15]


def test_exactly_what_is_free_can_be_reserved(db: Db) -> None:
    dice = Random(9)
    rooms = a_calendar(
        db,
        capacity=4,
        buffer_before_seconds=1_800,
        buffer_after_seconds=3_600,
        time_zone="Europe/Vienna",
        opening_hours={"fri": ["06:00-22:00"], "sat": ["00:00-12:00"]},
    )
    for _ in range(12):
        reserve(db, a_time_request(rooms, some_hours(dice), dice.randint(1, 2)))
    (found,) = of_the_day(db, rooms, window=hours(0, 48))
    seen = set()

    for _ in range(60):
        period = some_hours(dice)
        units = min(step.free for step in found.steps if step.start < period.end and period.start < step.end)
        seen.add(units)

        assert units == 0 or can_be_reserved(db, rooms, period, units)
        assert not can_be_reserved(db, rooms, period, units + 1)

    assert len(seen) > 3, "it was never much, or never little, that was free"


def some_hours(dice: Random) -> Period:
    start = dice.randint(0, 2 * 30)
    return hours(start / 2, (start + dice.randint(1, 12)) / 2)


def can_be_reserved(db: Db, item: Item, period: Period, quantity: int) -> bool:
    """Try it, and undo it."""
    with db() as session:
        (outcome,) = reservations.reserve(session, [a_time_request(item, period, quantity)], routes_of(db))
    assert isinstance(outcome, Answered | NotFree | OutsideOpeningHours | Invalid), outcome
    return isinstance(outcome, Answered)


@pytest.mark.parametrize(
    ("window", "wanted", "field"),
    [
        (Period(DAY.start, DAY.start + MAX_WINDOW + HOUR), None, "end"),
        (DAY, Starts(1, timedelta(), HOUR), "duration"),
        (DAY, Starts(1, HOUR, timedelta(seconds=59)), "step"),
        (DAY, Starts(1, HOUR, -HOUR), "step"),
        (Period(DAY.start, DAY.start + MAX_WINDOW), Starts(1, HOUR, timedelta(minutes=13)), "step"),
    ],
)
def test_what_would_be_too_much_is_refused(db: Db, window: Period, wanted: Starts | None, field: str) -> None:
    room = a_calendar(db)

    with pytest.raises(Invalid) as refused:
        of_the_day(db, room, window=window, wanted=wanted)

    assert refused.value.field == field


def test_an_answer_from_too_many_times_is_refused(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TAKEN", 2)
    room, other = a_calendar(db, capacity=3), a_calendar(db)
    for start in (1, 1, 3):
        a_time_hold(db, room, hours(start, start + 1))

    (shown,) = of_the_day(db, room)
    assert [step.free for step in shown.steps] == [3, 1, 3, 2, 3]
    a_time_hold(db, other, hours(5, 6))
    with pytest.raises(Invalid, match="more than 2 times are taken until then") as refused:
        of_the_day(db, room, other)
    assert refused.value.field == "end"


def test_a_quarter_can_be_looked_at_and_each_of_ten_thousand_starts(db: Db) -> None:
    room = a_calendar(db)
    quarter, starts = (Period(DAY.start, DAY.start + duration) for duration in (MAX_WINDOW, MAX_STARTS * MINUTE))

    (shown,) = of_the_day(db, room, window=quarter)
    (searched,) = of_the_day(db, room, window=starts, wanted=Starts(1, MINUTE, MINUTE))

    assert shown.steps == [Step(quarter.start, quarter.end, 1)]
    assert searched.starts and len(searched.starts) == MAX_STARTS


def test_stock_has_no_free_time(db: Db) -> None:
    with pytest.raises(Invalid, match="stock"):
        of_the_day(db, an_item(db))


def test_reading_locks_nothing(db: Db) -> None:
    room = a_calendar(db)

    with db() as reader:
        snapshot(reader, [room.id], DAY)

        assert isinstance(reserve(db, a_time_request(room, hours(8, 9)))[0], Answered)


def test_tables_that_are_small_are_read_by_index_because_they_may_grow(
    db: Db, engine: Engine, settings: Settings
) -> None:
    """PostgreSQL keeps the plans that it has made of a table, also when the table is a thousand times as large."""
    room = a_calendar(db, venue="hotel")
    a_time_hold(db, room, hours(8, 9))
    refused = NotFree(room.sku, 1, 0, hours(8, 9).start, hours(8, 9).end)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE items, calendar_occupancies"))

    assert not read_whole(settings, lambda session: snapshot(session, [room.id, room.sku], DAY))
    assert not read_whole(settings, lambda session: calendars.explain(session, refused))


def read_whole(settings: Settings, read: Callable[[Session], object]) -> set[str]:
    """Return the tables that were read as a whole, by a connection that does nothing else."""
    engine = connect(settings, connections=1)
    with sessions(engine)() as session:
        # A statement is planned once and for all after ten executions at the latest.
        for _ in range(12):
            read(session)
        whole = text("SELECT relname FROM pg_stat_xact_user_tables WHERE seq_scan > 0")
        found = set(session.execute(whole).scalars())
    engine.dispose()
    return found
