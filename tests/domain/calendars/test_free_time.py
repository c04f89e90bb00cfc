"""Free time: what the steps say of any period is what its reservation would meet."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.calendars.capacity import Occupied, Timeline
from domain.calendars.free_time import Step, free_spans, free_starts, free_throughout, steps
from domain.calendars.periods import Period
from domain.calendars.zones import zone_of
from tests.domain.calendars.hour_model import HourModel, a_calendar, length, models, parts
from tests.domain.calendars.strategies import HOUR, MINUTE, at, periods, units


@given(model=models, window=periods)
def test_a_period_can_be_reserved_exactly_if_each_of_its_steps_has_enough(model: HourModel, window: Period) -> None:
    found = steps(model.item, window, model.timeline())

    for duration in (1, 2, 5, length(window)):
        for period in parts(window, duration):
            free = [step.free for step in found if step.start < period.end and period.start < step.end]
            assert min(free) == model.free(period)


@given(model=models, window=periods)
def test_steps_cover_the_window_and_each_differs_from_the_next(model: HourModel, window: Period) -> None:
    found = steps(model.item, window, model.timeline())

    assert (found[0].start, found[-1].end) == (window.start, window.end)
    for one, following in pairwise(found):
        assert one.end == following.start
        assert one.free != following.free
    assert all(step.start < step.end for step in found)


@given(model=models, period=periods)
def test_what_is_free_throughout_a_period(model: HourModel, period: Period) -> None:
    assert free_throughout(model.item, period, model.timeline()) == model.free(period)


@given(model=models, window=periods, quantity=units, duration=st.integers(1, 6), every=st.integers(1, 3))
def test_a_free_start_is_each_one_on_the_grid_at_which_a_reservation_fits(
    model: HourModel, window: Period, quantity: int, duration: int, every: int
) -> None:
    found = steps(model.item, window, model.timeline())

    starts = list(free_starts(found, quantity, duration * HOUR, every * HOUR, zone_of("UTC")))

    on_grid = parts(window, duration)[::every]
    assert starts == [period.start for period in on_grid if model.free(period) >= quantity]


@pytest.mark.parametrize(
    ("buffers", "taken_from", "taken_until"), [((1, 2), 8, 13), ((1, 0), 10, 13), ((0, 2), 8, 12), ((0, 0), 10, 12)]
)
def test_buffers_of_two_reservations_both_lie_between_them(
    buffers: tuple[int, int], taken_from: int, taken_until: int
) -> None:
    """The room is taken from 10 to 12, with the buffers of that reservation. The next one has its own buffers."""
    timeline = Timeline([Occupied(at(10), at(12), 1)])

    assert steps(a_calendar(buffers=buffers), Period(at(0), at(24)), timeline) == [
        Step(at(0), at(taken_from), 1),
        Step(at(taken_from), at(taken_until), 0),
        Step(at(taken_until), at(24), 1),
    ]


def test_units_of_two_that_follow_each_other_are_not_added_up_by_the_buffers() -> None:
    rooms = a_calendar(capacity=2, buffers=(1, 1))
    timeline = Timeline([Occupied(at(4), at(8), 1), Occupied(at(8), at(12), 1)])

    assert free_throughout(rooms, Period(at(5), at(11)), timeline) == 1


def test_a_calendar_with_less_capacity_than_is_taken_has_nothing_free() -> None:
    timeline = Timeline([Occupied(at(4), at(8), 7)])

    assert free_throughout(a_calendar(capacity=5), Period(at(5), at(6)), timeline) == 0


def test_free_spans_join_what_has_enough() -> None:
    found = [Step(at(0), at(1), 3), Step(at(1), at(2), 2), Step(at(2), at(3), 1), Step(at(3), at(4), 4)]

    assert free_spans(found, 2) == [Step(at(0), at(2), 2), Step(at(3), at(4), 2)]
    assert free_spans(found, 5) == []


def test_a_grid_of_days_keeps_the_wall_time() -> None:
    """In Vienna the clock is put forward on 29 March 2026, so 15:00 is an hour earlier in UTC from then on."""
    vienna = zone_of("Europe/Vienna")
    checks_in = datetime(2026, 3, 27, 14, tzinfo=UTC)
    found = [Step(checks_in, checks_in + timedelta(days=4), 1)]

    by_day = list(free_starts(found, 1, 20 * HOUR, timedelta(days=1), vienna))
    by_hours = list(free_starts(found, 1, 20 * HOUR, timedelta(hours=24, minutes=1), vienna))

    assert [start.astimezone(vienna).hour for start in by_day] == [15, 15, 15, 15]
    assert by_hours == [checks_in + number * (24 * HOUR + MINUTE) for number in range(4)]


def test_the_first_start_is_the_start_also_when_the_clock_shows_it_for_the_second_time() -> None:
    second_half_past_two = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    found = [Step(second_half_past_two, second_half_past_two + timedelta(days=2), 1)]

    starts = list(free_starts(found, 1, HOUR, timedelta(days=1), zone_of("Europe/Vienna")))

    assert starts == [second_half_past_two, second_half_past_two + timedelta(days=1)]
