"""Ids: those of one moment keep their order, and those of different moments sort by time."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import RFC_4122, UUID

import pytest

from domain.runtime.identity import HIGHEST_ID, lowest_id, new_ids

MOMENT = datetime(2026, 11, 21, 12, 0, 0, 123_456, tzinfo=UTC)

MICROSECOND = timedelta(microseconds=1)


def ids(moment: datetime, count: int = 1) -> list[UUID]:
    return list(islice(new_ids(moment), count))


def test_an_id_is_of_version_7_and_contains_its_milliseconds() -> None:
    (made,) = ids(MOMENT)

    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == int(MOMENT.timestamp() * 1_000)


def test_the_ids_of_one_moment_rise_and_stay_within_its_microsecond() -> None:
    made = ids(MOMENT, 10_000)

    assert made == sorted(set(made))
    assert lowest_id(MOMENT) < made[0] and made[-1] < lowest_id(MOMENT + MICROSECOND)


def test_the_ids_of_each_microsecond_are_higher_than_those_of_the_one_before() -> None:
    made = [one for step in range(3_000) for one in ids(MOMENT + step * MICROSECOND)]

    assert made == sorted(made)


def test_two_processes_that_make_ids_in_the_same_microsecond_make_different_ones() -> None:
    made = [one for _ in range(1_000) for one in ids(MOMENT, 3)]

    assert len(set(made)) == len(made)


@pytest.mark.parametrize("year", [1, 1969, 1970, 9999])
def test_every_time_that_a_client_can_name_has_a_lowest_id(year: int) -> None:
    moment = datetime(year, 7, 1, tzinfo=UTC)

    assert lowest_id(moment).int >> 80 == max(int(moment.timestamp()) * 1_000, 0)
    assert lowest_id(moment) < HIGHEST_ID
