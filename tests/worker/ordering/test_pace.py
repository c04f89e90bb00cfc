"""The pace of a destination: step by step after an outage, and no storm under load."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from uuid import uuid4

import pytest

from domain.outbox import Delivered, NotSent, Outcome, Unreachable
from tests.worker.ordering.test_ordered_calls import some_rows
from worker.ordering.pace import FREE_AFTER_SECONDS, UNLIMITED, Pace, Rate

A, B = uuid4(), uuid4()

FAR = float("inf")


def answered(pace: Pace, outcome: Outcome, rows: int = 1) -> None:
    pace.answered(some_rows(*(uuid4() for _ in range(rows))), [outcome] * rows)


def admitted_at_once(pace: Pace) -> int:
    return pace.admit(1_000, time.monotonic() + 0.01)


def test_there_is_no_limit_at_first() -> None:
    assert Pace(Event()).admit(1_000, FAR) == 1_000


def test_after_an_outage_more_and_more_calls_may_begin() -> None:
    pace, steps = Pace(Event()), []
    pace.begin_recovery()

    while (admitted := pace.admit(1_000, FAR)) < 1_000:
        assert admitted_at_once(pace) == 0, "they are in flight"
        steps.append(admitted)
        answered(pace, Delivered(), admitted)

    assert steps == [1, 2, 4, 8, 16]


def test_a_refusal_while_it_recovers_begins_with_one_call_again() -> None:
    pace = Pace(Event())
    pace.begin_recovery()
    for _ in range(3):
        answered(pace, Delivered(), pace.admit(1_000, FAR))

    answered(pace, Unreachable("down"), pace.admit(1_000, FAR))

    assert admitted_at_once(pace) == 1


def test_a_call_that_was_not_made_frees_its_place() -> None:
    pace = Pace(Event())
    pace.begin_recovery()

    for _ in range(3):
        answered(pace, NotSent(), pace.admit(1, FAR))

    assert admitted_at_once(pace) == 1


def test_a_call_waits_until_another_one_was_answered() -> None:
    pace = Pace(Event())
    pace.begin_recovery()
    pace.admit(1, FAR)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pace.admit, 1, FAR)
        answered(pace, Delivered())

        assert waiting.result(60) == 1


def test_no_call_begins_in_a_process_that_stops() -> None:
    stopping = Event()
    stopping.set()

    assert Pace(stopping).admit(1, FAR) == 0


def test_a_call_that_waits_for_its_turn_does_not_begin_when_the_process_stops() -> None:
    stopping = Event()
    pace = Pace(stopping)
    pace.begin_recovery()
    pace.admit(1, FAR)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pace.admit, 1, FAR)
        stopping.set()

        assert waiting.result(60) == 0


class Receiver:
    """A receiver that takes so many rows a second and sheds the rest, and a clock that goes as fast as the test."""

    def __init__(self, *, capacity: float) -> None:
        self.capacity, self.tokens = capacity, 1.0
        self.taken, self.shed = 0, 0

    def run(self, rate: Rate, *, seconds: int, start: float = 0.0) -> None:
        """Call it 1,000 times a second, as far as the rate allows."""
        self.taken, self.shed = 0, 0
        for tick in range(seconds * 1_000):
            now = start + tick / 1_000
            self.tokens = min(self.tokens + self.capacity / 1_000, max(2.0, self.capacity))
            if rate.admit(1, now):
                self._answer(rate, now)

    def _answer(self, rate: Rate, now: float) -> None:
        if self.tokens >= 1:
            self.tokens -= 1
            self.taken += 1
            rate.count(1, [], now)
        else:
            self.shed += 1
            rate.count(0, [uuid4()], now)


@pytest.mark.parametrize("capacity", [1, 4, 6, 50, 400])
def test_a_receiver_that_sheds_load_gets_what_it_can_take_and_not_much_more(capacity: float) -> None:
    rate, receiver = Rate(), Receiver(capacity=capacity)

    receiver.run(rate, seconds=60)

    assert receiver.taken >= 0.9 * capacity * 60
    assert receiver.shed <= 3 * receiver.taken


def test_when_a_receiver_can_take_more_it_soon_gets_more() -> None:
    rate, receiver = Rate(), Receiver(capacity=4)
    receiver.run(rate, seconds=20)

    receiver.capacity = 400
    receiver.run(rate, seconds=20, start=20)

    assert receiver.taken >= 0.6 * 400 * 20


def test_one_row_that_is_refused_again_and_again_is_no_load() -> None:
    rate = Rate()

    for second in range(100):
        rate.count(1, [A], float(second))

    assert rate.rate == UNLIMITED


def test_when_nothing_is_shed_any_more_there_is_no_limit() -> None:
    rate = Rate()
    rate.count(0, [A, B], 0.0)
    assert rate.rate == UNLIMITED, "it takes nothing, so the circuit breaker decides"
    rate.count(1, [], 0.1)
    rate.count(0, [A, B], 0.2)
    assert rate.rate == 2.0

    rate.count(1, [], FREE_AFTER_SECONDS / 2)
    assert 2.0 < rate.rate < UNLIMITED

    rate.count(1, [], FREE_AFTER_SECONDS + 0.3)
    assert rate.rate == UNLIMITED


def test_calls_that_might_have_begun_earlier_may_begin_later_but_only_those_of_a_second() -> None:
    rate = Rate()
    rate.count(10, [A, B], 100.0)

    assert rate.admit(1_000, 100.0) == 1
    assert rate.admit(1_000, 200.0) == 21


def test_a_call_that_outlasts_its_batch_takes_no_place_while_the_destination_recovers() -> None:
    pace = Pace(Event())
    pace.begin_recovery()
    assert (pace.admit(1, FAR), admitted_at_once(pace)) == (1, 0)

    pace.outlasted(1)

    assert admitted_at_once(pace) == 1


@pytest.mark.parametrize("outcome", [Delivered(), Unreachable("it hung")])
def test_its_late_answer_changes_not_how_many_calls_may_begin(outcome: Outcome) -> None:
    pace = Pace(Event())
    pace.begin_recovery()
    answered(pace, Delivered(), pace.admit(1_000, FAR))
    assert pace.admit(1, FAR) == 1
    pace.outlasted(1)

    (row,) = some_rows(uuid4())
    pace.answered_late(row, outcome)

    assert admitted_at_once(pace) == 2
