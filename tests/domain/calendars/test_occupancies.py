"""How much of what is taken is read for a set of requests: no set keeps others waiting, and large sets read enough."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from domain.calendars.occupancies import LEAST_READ, MOST_READ, MOST_READ_OF_ALL, READ, occupied_query
from tests.support.builders import hours

FAR = timedelta(days=100) / timedelta(hours=1)


def limits(*numbers: int) -> list[int]:
    """Return how many occupancies are read for so many periods of each of some calendars, all of which overlap."""
    wanted = [(calendar, hours(place, place + 24)) for calendar, n in enumerate(numbers) for place in range(n)]
    return list(occupied_query(wanted)[1])


def test_the_more_periods_overlap_the_more_is_read_for_them() -> None:
    assert limits(1) == [READ]
    assert limits(3) == [3 * READ]
    assert limits(20, 5) == [MOST_READ, 5 * READ]
    assert limits(100, *[1] * 100) == [MOST_READ, *[400] * 100]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_whatever_is_wanted_some_is_read_for_each_and_no_more_than_a_part_for_all(numbers: list[int]) -> None:
    found = limits(*numbers)

    assert min(found) >= LEAST_READ
    assert sum(found) <= MOST_READ_OF_ALL + LEAST_READ * len(numbers)


def test_periods_apart_are_read_each() -> None:
    assert list(occupied_query([(1, hours(0, 1)), (1, hours(FAR, FAR + 1))])[1]) == [READ, READ]
