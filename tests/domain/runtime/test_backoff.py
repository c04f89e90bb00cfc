"""Backoff: exponential, with full jitter and a cap."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.runtime.backoff import delay

FIRST = timedelta(seconds=1)
CAP = timedelta(minutes=10)

attempts = st.integers(1, 10_000)
jitters = st.floats(0, 1, exclude_max=True)
pauses = st.timedeltas(timedelta(milliseconds=1), timedelta(hours=1))


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (12, 600)])
def test_the_delay_doubles_with_each_attempt_up_to_the_cap(attempt: int, seconds: int) -> None:
    assert delay(attempt, first=FIRST, cap=CAP, jitter=1.0) == timedelta(seconds=seconds)


@given(attempts, jitters, pauses, pauses)
def test_the_delay_is_never_negative_nor_above_the_cap(
    attempt: int, jitter: float, first: timedelta, cap: timedelta
) -> None:
    assert timedelta(0) <= delay(attempt, first=first, cap=cap, jitter=jitter) <= cap


@given(attempts, pauses, pauses)
def test_the_longest_delay_never_shrinks_from_one_attempt_to_the_next(
    attempt: int, first: timedelta, cap: timedelta
) -> None:
    now, next_one = (delay(tries, first=first, cap=cap, jitter=1.0) for tries in (attempt, attempt + 1))

    assert now <= next_one <= 2 * now


@given(attempts, st.lists(jitters, min_size=2, max_size=2))
def test_the_jitter_spreads_the_delay_over_the_whole_interval(attempt: int, rolls: list[float]) -> None:
    low, high = (delay(attempt, first=FIRST, cap=CAP, jitter=roll) for roll in sorted(rolls))

    assert low <= high
    assert delay(attempt, first=FIRST, cap=CAP, jitter=0.0) == timedelta(0)
    assert abs(high - sorted(rolls)[1] * delay(attempt, first=FIRST, cap=CAP, jitter=1.0)) < timedelta(milliseconds=1)


@given(st.integers(max_value=0))
def test_before_the_first_attempt_the_delay_is_that_of_the_first(attempt: int) -> None:
    assert delay(attempt, first=FIRST, cap=CAP, jitter=1.0) == FIRST
