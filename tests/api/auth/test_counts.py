"""Counts: what a rate remembers of whom, in bounded memory."""

import tracemalloc

import pytest

from api.auth.limits import counts
from api.auth.limits.counts import Counts
from api.auth.limits.rates import Rate

#: A moment at which a window of any length of these tests begins.
BEGIN = 1_800_000_000.0


def used(one: Counts, key: str, now: float, times: int = 1) -> int:
    """Return how many of so many requests are admitted."""
    return sum(one.use(key, now) is None for _ in range(times))


def test_no_more_than_the_quota_is_admitted_within_any_span_of_its_length() -> None:
    one = Counts(Rate("principal", 100, 10))

    assert used(one, "ann", BEGIN + 9.9, times=200) == 100
    assert used(one, "ann", BEGIN + 10, times=200) == 0
    assert used(one, "ann", BEGIN + 15, times=200) == 50
    assert used(one, "ann", BEGIN + 30, times=200) == 100


@pytest.mark.parametrize("at", [0.0, 3.0, 9.9])
def test_who_waits_as_long_as_it_is_told_is_admitted_and_not_much_sooner(at: float) -> None:
    one = Counts(Rate("principal", 5, 10))
    used(one, "ann", BEGIN + at, times=5)
    refused = one.use("ann", BEGIN + at)
    assert refused is not None

    seconds = one.seconds_until_free("ann", refused, BEGIN + at)

    assert one.use("ann", BEGIN + at + seconds - 1.1) is not None
    assert one.use("ann", BEGIN + at + seconds) is None


def test_nobody_gets_rid_of_its_count_by_being_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST_COUNTED", 1_000)
    one = Counts(Rate("address", 5, 60))
    used(one, "attacker", BEGIN, times=5)

    for number in range(20_000):
        one.use(f"attacker-{number}", BEGIN + 1)

    assert used(one, "attacker", BEGIN + 2) == 0


def test_those_that_find_no_place_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST_COUNTED", 100)
    monkeypatch.setattr(counts, "SHARED_COUNTS", 10)
    one = Counts(Rate("address", 5, 60))

    admitted = sum(used(one, f"attacker-{number}", BEGIN) for number in range(10_000))

    assert admitted == 100 + 10 * 5
    assert used(one, "attacker-9999", BEGIN + 60) == 0


def test_a_million_senders_take_bounded_memory() -> None:
    one = Counts(Rate("address", 5, 60))
    tracemalloc.start()
    for number in range(1_000_000):
        one.use(f"2001:db8:{number:x}::/64", BEGIN)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 20_000_000


def test_a_block_is_to_be_shared_when_it_is_full() -> None:
    shared = []
    one = Counts(Rate("principal", 100, 60), lambda *of: shared.append(of))

    used(one, "ann", BEGIN, times=4)
    assert shared == []
    used(one, "ann", BEGIN)
    assert [(window, key, count.unshared) for _, window, key, count in shared] == [(BEGIN // 60, "ann", 5)]


def test_whether_a_quota_is_used_up_can_be_asked_without_using_it() -> None:
    one = Counts(Rate("failed-authentication", 2, 10))

    asked = [one.is_used_up("ann", BEGIN + 9) for _ in range(5)]
    used(one, "ann", BEGIN + 9, times=2)

    assert asked == [False] * 5
    assert [one.is_used_up("ann", BEGIN + at) for at in (9, 10, 15, 30)] == [True, True, False, False]
    assert not one.is_used_up("bob", BEGIN + 9)


def test_a_thread_that_read_the_clock_before_the_window_turned_drops_no_count() -> None:
    one = Counts(Rate("principal", 30, 60))
    used(one, "ann", BEGIN + 59.9, times=30)

    admitted = [used(one, "ann", BEGIN + at, times=30) for at in (60.01, 59.99, 60.02, 59.98)]

    assert admitted == [0, 0, 0, 0]


def test_whether_a_count_in_common_is_used_up_is_known_of_each_who_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST_COUNTED", 1)
    monkeypatch.setattr(counts, "SHARED_COUNTS", 1)
    one = Counts(Rate("address", 2, 60))
    used(one, "first", BEGIN)

    assert not one.is_used_up("late", BEGIN)
    assert used(one, "late", BEGIN, times=3) == 2
    assert one.is_used_up("late", BEGIN) and one.is_used_up("later", BEGIN) and not one.is_used_up("first", BEGIN)
