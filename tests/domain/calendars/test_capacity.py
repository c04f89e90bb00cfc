"""The greatest use of a calendar, beside a model that looks at each hour."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from domain.calendars.capacity import Occupied, Timeline
from domain.calendars.periods import Period
from tests.domain.calendars.strategies import at, hours, occupied, periods
from tests.support.hypothesis_settings import EXAMPLES


def greatest_use(period: Period, taken: Sequence[Occupied]) -> int:
    return Timeline(taken).greatest_use(period.start, period.end)


def busiest_hour(period: Period, taken: Sequence[Occupied]) -> int:
    """The model: count the units of each hour, and take the hour with the most."""
    use: Counter[int] = Counter()
    for start, end, units in taken:
        use.update(dict.fromkeys(hours(start, end), units))
    return max(use[hour] for hour in hours(period.start, period.end))


@EXAMPLES
@given(period=periods, taken=st.lists(occupied, max_size=12))
def test_the_greatest_use_is_that_of_the_busiest_hour(period: Period, taken: list[Occupied]) -> None:
    assert greatest_use(period, taken) == busiest_hour(period, taken)


@EXAMPLES
@given(
    first=st.lists(occupied, max_size=8), later=st.lists(st.tuples(occupied, st.booleans()), max_size=8), asked=periods
)
def test_a_timeline_that_grows_and_shrinks_is_the_same_as_a_new_one(
    first: list[Occupied], later: list[tuple[Occupied, bool]], asked: Period
) -> None:
    timeline = Timeline(first)
    taken = list(first)
    for one, is_given_back in later:
        timeline.add(*one)
        if is_given_back:
            timeline.add(one.start, one.end, -one.units)
        else:
            taken.append(one)

        assert timeline.greatest_use(asked.start, asked.end) == busiest_hour(asked, taken)


def test_what_touches_is_not_in_use_at_the_same_time() -> None:
    taken = [Occupied(at(1), at(2), 3), Occupied(at(2), at(3), 2)]

    assert greatest_use(Period(at(0), at(5)), taken) == 3
    assert greatest_use(Period(at(2), at(3)), taken) == 2
    assert greatest_use(Period(at(3), at(4)), taken) == 0
    assert greatest_use(Period(at(0), at(1)), taken) == 0


def test_the_use_of_two_that_follow_each_other_is_not_added_up() -> None:
    one_after_the_other = [Occupied(at(hour), at(hour + 1), 2) for hour in range(10)]

    assert greatest_use(Period(at(0), at(10)), one_after_the_other) == 2


def test_nothing_is_in_use_where_nothing_is_occupied() -> None:
    assert greatest_use(Period(at(0), at(1)), []) == 0
    assert list(Timeline().uses(at(0), at(1))) == [(at(0), at(1), 0)]


@EXAMPLES
@given(taken=st.lists(occupied, max_size=12), window=periods)
def test_from_when_until_when_how_many_units_are_in_use(taken: list[Occupied], window: Period) -> None:
    found = list(Timeline(taken).uses(window.start, window.end))

    by_hour = [(hour, used) for start, end, used in found for hour in hours(start, end)]
    assert by_hour == [
        (hour, busiest_hour(Period(at(hour), at(hour + 1)), taken)) for hour in hours(window.start, window.end)
    ]
    assert (found[0][0], found[-1][1]) == (window.start, window.end)
    assert all(start < end for start, end, _ in found)
