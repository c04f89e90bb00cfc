"""Alternatives: each is free when it is taken at once, and no other one is nearer."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.calendars import alternatives
from domain.calendars.alternatives import LONGEST_MOVED_BY_HOURS, SEARCH, searched
from domain.calendars.capacity import Occupied, Timeline
from domain.calendars.periods import EARLIEST, LATEST, MAX_PERIOD, Period
from domain.items import Item
from tests.domain.calendars.hour_model import HourModel, a_calendar, models
from tests.domain.calendars.strategies import HOUR, HOURS, at, lasting, periods, units
from tests.support.hypothesis_settings import EXAMPLES

DAY = timedelta(days=1)
LONG_AGO = EARLIEST - DAY
LONGEST = LONGEST_MOVED_BY_HOURS // HOUR


def other_times(
    item: Item, wanted: Period, quantity: int, timeline: Timeline, *, not_before: datetime, limit: int
) -> list[Period]:
    """Look for other times that are not over."""
    window = searched(wanted, not_before)
    return [] if window is None else alternatives.other_times(item, wanted, quantity, timeline, window, limit)


@EXAMPLES
@given(model=models, wanted=periods, quantity=units, now=st.integers(-3, HOURS))
def test_an_alternative_can_be_reserved_and_lies_in_the_future(
    model: HourModel, wanted: Period, quantity: int, now: int
) -> None:
    found = other_times(model.item, wanted, quantity, model.timeline(), not_before=at(now), limit=3)

    assert len(found) <= 3
    for period in found:
        assert model.free(period) >= quantity
        assert period.start >= at(now)
        assert period.duration == wanted.duration


@EXAMPLES
@given(model=models, wanted=lasting(1, LONGEST), quantity=units, now=st.integers(-3, HOURS))
def test_the_first_alternative_is_the_nearest(model: HourModel, wanted: Period, quantity: int, now: int) -> None:
    found = other_times(model.item, wanted, quantity, model.timeline(), not_before=at(now), limit=3)

    distances = [abs(period.start - wanted.start) for period in found]
    assert distances == sorted(distances)
    assert distances[:1] == nearest_by_hours(model, wanted, quantity, now)


def nearest_by_hours(model: HourModel, wanted: Period, quantity: int, now: int) -> list[timedelta]:
    """The model: move the period by hours, further and further, until it fits."""
    for hours in range(SEARCH // HOUR + 1):
        for moved in (wanted.widened(hours * HOUR, -hours * HOUR), wanted.widened(-hours * HOUR, hours * HOUR)):
            if moved.start >= at(now) and model.free(moved) >= quantity:
                return [hours * HOUR]
    return []


@EXAMPLES
@given(model=models, wanted=lasting(LONGEST + 1, 2 * LONGEST), quantity=units)
def test_what_is_long_is_moved_by_days(model: HourModel, wanted: Period, quantity: int) -> None:
    found = other_times(model.item, wanted, quantity, model.timeline(), not_before=LONG_AGO, limit=100)

    moved = [wanted.widened(-days * DAY, days * DAY) for days in range(-SEARCH.days, SEARCH.days + 1)]
    fitting = [period for period in moved if model.free(period) >= quantity]
    assert sorted(found, key=lambda period: period.start) == fitting


def test_alternatives_touch_what_is_in_the_way() -> None:
    timeline = Timeline([Occupied(at(9), at(12), 1), Occupied(at(14), at(18), 1)])

    found = other_times(a_calendar(), Period(at(11), at(13)), 1, timeline, not_before=LONG_AGO, limit=3)

    assert found == [Period(at(12), at(14)), Period(at(7), at(9)), Period(at(5), at(7))]


def test_a_stay_keeps_its_times_of_day_when_the_clock_is_changed() -> None:
    """In Vienna, from 15:00 until 11:00. The night before 29 March 2026 has an hour less."""
    wanted = Period(datetime(2026, 3, 27, 14, tzinfo=UTC), datetime(2026, 3, 28, 10, tzinfo=UTC))
    room = a_calendar(time_zone="Europe/Vienna")

    found = other_times(
        room, wanted, 1, Timeline([Occupied(wanted.start, wanted.end, 1)]), not_before=wanted.start, limit=2
    )

    assert found == [
        Period(datetime(2026, 3, 28, 14, tzinfo=UTC), datetime(2026, 3, 29, 9, tzinfo=UTC)),
        Period(datetime(2026, 3, 29, 13, tzinfo=UTC), datetime(2026, 3, 30, 9, tzinfo=UTC)),
    ]


def test_what_has_become_free_is_the_nearest_alternative_itself() -> None:
    short, long = Period(at(9), at(10)), Period(at(9), at(29))

    assert other_times(a_calendar(), short, 1, Timeline(), not_before=LONG_AGO, limit=2) == [
        short,
        Period(at(10), at(11)),
    ]
    assert other_times(a_calendar(), long, 1, Timeline(), not_before=LONG_AGO, limit=1) == [long]


@pytest.mark.parametrize("duration", [HOUR, MAX_PERIOD - DAY, MAX_PERIOD - timedelta(microseconds=3), MAX_PERIOD])
@pytest.mark.parametrize("is_last", [False, True])
def test_at_the_limits_of_what_can_be_reserved_alternatives_are_valid(duration: timedelta, is_last: bool) -> None:
    wanted = Period(LATEST - duration, LATEST) if is_last else Period(EARLIEST, EARLIEST + duration)
    taken = Timeline([Occupied(wanted.start, wanted.start + HOUR, 1)])

    for period in other_times(a_calendar(), wanted, 1, taken, not_before=LONG_AGO, limit=3):
        assert period == Period(period.start, period.end)


def test_nothing_is_searched_when_all_of_it_is_over() -> None:
    wanted = Period(at(0), at(1))

    assert searched(wanted, at(1) + SEARCH) is None
