"""Lists of what overlaps a window: in order of the start, whatever the filters are and however long a page is."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from random import Random
from typing import Any
from uuid import UUID

import pytest

from domain import reservations
from domain.calendars.periods import MAX_PERIOD, Period
from domain.idempotency import Answered
from domain.reservations import Amendment, Change, Claim, Filter, Reschedule, Reservation, Window
from domain.reservations.durations import LONGEST_HOURS
from domain.reservations.lifecycle import Status
from tests.support.builders import (
    FRIDAY,
    Db,
    a_calendar,
    a_hold,
    a_time_hold,
    a_time_request,
    an_item,
    hours,
    let_lapse,
    reserve,
    routes_of,
    the,
)

HOUR = timedelta(hours=1)


def listed(db: Db, window: Window, *, limit: int = 100, **wanted: Any) -> list[UUID]:
    """Return all pages as one list."""
    found: list[UUID] = []
    after = None
    while True:
        with db.begin() as session:
            page = reservations.find_overlapping(session, Filter(**wanted), window, after=after, limit=limit)
        found += [one.id for one in page.reservations]
        after = page.next_after
        if after is None:
            return found


def between(start: float, end: float) -> Window:
    period = hours(start, end)
    return Window(ends_after=period.start, starts_before=period.end)


def test_what_overlaps_the_window_is_listed_in_order_of_its_start(db: Db) -> None:
    rooms = a_calendar(db, capacity=10)
    held = {start: a_time_hold(db, rooms, hours(start, start + 2)).id for start in (8, 12, 9, 10, 11)}

    assert listed(db, between(10, 12)) == [held[9], held[10], held[11]]
    assert listed(db, Window()) == [held[start] for start in (8, 9, 10, 11, 12)]
    assert listed(db, Window(ends_after=hours(11, 12).start)) == [held[start] for start in (10, 11, 12)]
    assert listed(db, Window(starts_before=hours(9, 12).start)) == [held[8]]


def test_long_reservations_that_began_long_before_the_window_are_listed_first(db: Db) -> None:
    rooms = a_calendar(db, capacity=10)
    short = a_time_hold(db, rooms, hours(10, 10.5))
    longest = a_time_hold(db, rooms, hours(-17_000, 400))
    month = a_time_hold(db, rooms, hours(-700, 11))
    over = a_time_hold(db, rooms, hours(-700, 9))

    assert listed(db, between(10, 11)) == [longest.id, month.id, short.id]
    assert over.id in listed(db, between(8, 11))


@pytest.mark.parametrize("longer", [0.000_001, 0.5, 0.999_999, 1])
@pytest.mark.parametrize("length", [*LONGEST_HOURS, MAX_PERIOD / HOUR])
def test_a_reservation_is_listed_until_its_very_end_in_every_class_of_durations(
    db: Db, length: float, longer: float
) -> None:
    end = FRIDAY + min(timedelta(hours=length, seconds=longer), MAX_PERIOD)
    held = a_time_hold(db, a_calendar(db), Period(FRIDAY, end))

    assert listed(db, Window(ends_after=end - timedelta(microseconds=1))) == [held.id]
    assert listed(db, Window(ends_after=end)) == []


@pytest.mark.parametrize("year", [1, 9_999])
def test_a_window_may_be_bounded_by_any_time(db: Db, year: int) -> None:
    held = a_time_hold(db, a_calendar(db), hours(10, 11)).id
    moment = datetime(year, 1, 1, tzinfo=UTC)

    assert listed(db, Window(ends_after=moment)) == ([held] if year == 1 else [])
    assert listed(db, Window(starts_before=moment)) == ([] if year == 1 else [held])


def test_stock_is_not_listed(db: Db) -> None:
    a_hold(db, an_item(db))

    assert listed(db, Window()) == []


GUESTS, STATUSES = ("anna", "bert", None), (Status.PENDING, Status.CONFIRMED, Status.CANCELLED, Status.BLOCKED)


@pytest.fixture
def mixed(db: Db) -> Sequence[Reservation]:
    """Reservations of three calendars with every duration, some of several lines, some overdue."""
    dice = Random(7)
    calendars = [a_calendar(db, capacity=1_000) for _ in range(3)]
    requests = []
    for number in range(120):
        start = dice.uniform(-300, 300)
        period = hours(start, start + dice.choice([0.5, 1, 3, 10, 30, 100, 700, 3_000, 9_000]))
        chosen = dice.sample(calendars, dice.choice([1, 1, 2]))
        status = STATUSES[number % 4]
        requests.append(
            a_time_request(
                chosen[0],
                period,
                lines=tuple(Claim(one.id, 1, period) for one in chosen),
                guest_id=dice.choice(GUESTS),
                status=status if status is not Status.CANCELLED else Status.CONFIRMED,
                source=dice.choice(["api", "csv"]),
                render=lambda made: str(made.id),
            )
        )
    outcomes = reserve(db, *requests)
    ids = [UUID(outcome.text) for outcome in outcomes if isinstance(outcome, Answered)]
    assert len(ids) == 120
    with db.begin() as session:
        cancelled = reservations.lock(session, ids[2::4])
        reservations.transition(session, [Change(of=one, to=Status.CANCELLED) for one in cancelled], routes_of(db))
    for overdue in ids[0::8]:
        let_lapse(db, overdue)
    return [the(db, str(one)) for one in ids]


WINDOWS = [Window(), between(-5, 5), between(0, 0.5), between(-400, 0), Window(ends_after=FRIDAY)]


def choices(mixed: Sequence[Reservation]) -> Mapping[str, Sequence[Any]]:
    items = sorted({line.item_id for one in mixed for line in one.lines})
    statuses = (Status.PENDING, Status.EXPIRED, Status.CONFIRMED, Status.CANCELLED)
    return {"guest_id": ["anna"], "item_id": items[:2], "status": statuses, "source": ["csv"]}


def wanted(mixed: Sequence[Reservation]) -> Iterator[dict[str, Any]]:
    dice = Random(3)
    values = choices(mixed)
    for count in range(len(values) + 1):
        for names in combinations(values, count):
            yield {name: dice.choice(values[name]) for name in names}


def matches(one: Reservation, window: Window, asked: Mapping[str, Any]) -> bool:
    assert one.starts_at and one.ends_at
    has_item = asked.get("item_id") in (None, *(line.item_id for line in one.lines))
    others = {name: value for name, value in asked.items() if name != "item_id"}
    is_within = (window.ends_after is None or one.ends_at > window.ends_after) and (
        window.starts_before is None or one.starts_at < window.starts_before
    )
    return has_item and is_within and all(getattr(one, name) == value for name, value in others.items())


def start_of(one: Reservation) -> tuple[datetime, UUID]:
    assert one.starts_at
    return one.starts_at, one.id


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_every_combination_of_filters_lists_what_matches_and_nothing_else(
    db: Db, mixed: Sequence[Reservation], window: Window
) -> None:
    for asked in wanted(mixed):
        expected = [one.id for one in sorted(mixed, key=start_of) if matches(one, window, asked)]

        assert listed(db, window, **asked) == expected, asked
        assert listed(db, window, limit=3, **asked) == expected, asked


def test_a_reservation_that_was_moved_is_listed_where_it_is_now(db: Db) -> None:
    room, lot = a_calendar(db), a_calendar(db)
    lines = tuple(Claim(item.id, 1, hours(10, 12)) for item in (room, lot))
    both = a_time_hold(db, room, hours(10, 12), lines=lines)

    with db.begin() as session:
        moved = reservations.change(session, both.id, Reschedule(hours(20, 22)), routes=routes_of(db))
        assert isinstance(moved, Reservation)
        reservations.change(session, both.id, Amendment({"note": "later"}), routes=routes_of(db))

    for item in (room, lot):
        assert listed(db, between(10, 12), item_id=item.id) == []
        assert listed(db, between(21, 23), item_id=item.id) == [both.id]
