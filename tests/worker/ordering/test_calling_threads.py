"""Calls that hang take no thread from others, as long as the destination takes others."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Event
from uuid import uuid4

import pytest

from domain.outbox import Delivered, InFlight, NotSent, Outcome, Row
from tests.worker.ordering.test_ordered_calls import some_rows
from worker.ordering import batch_of_calls
from worker.ordering.calling_threads import HANGING_FOR_EACH
from worker.ordering.ordered_calls import OrderedCalls
from worker.ordering.pace import Pace

CONCURRENCY = 2


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_of_calls, "FIRST_ANSWER_SECONDS", 0.05)


class Hanging:
    """Calls to a destination that answers the rows with these ids when it may, and all others at once."""

    def __init__(self) -> None:
        self.pace = Pace(Event())
        self.may_answer = Event()
        self._calls = OrderedCalls(CONCURRENCY, self.pace, timeout_seconds=60)

    def deliver(self, count: int, *, hanging: Collection[int] = ()) -> list[Outcome]:
        """Deliver rows of so many aggregates. Their ids begin with 1."""

        def answer(row: Row) -> Outcome:
            if row.id in hanging:
                assert self.may_answer.wait(60)
            return Delivered()

        return [*self._calls.deliver(some_rows(*(uuid4() for _ in range(count))), answer)]

    def close(self) -> None:
        self.may_answer.set()
        self._calls.close()


@contextmanager
def destination() -> Iterator[Hanging]:
    opened = Hanging()
    try:
        yield opened
    finally:
        opened.close()


def test_rows_are_delivered_beside_more_calls_that_hang_than_there_are_threads() -> None:
    with destination() as shop:
        for _ in range(CONCURRENCY * HANGING_FOR_EACH):
            hanging, *others = shop.deliver(4, hanging={1})

            assert isinstance(hanging, InFlight)
            assert others == [Delivered()] * 3
            assert shop.pace.has_room(0)


def test_a_destination_of_which_nothing_is_answered_gets_no_further_threads() -> None:
    with destination() as shop:
        outcomes = shop.deliver(4, hanging={1, 2, 3, 4})

        assert sum(isinstance(one, InFlight) for one in outcomes) == CONCURRENCY
        assert not shop.pace.has_room(0)


def test_the_calls_that_hang_are_limited() -> None:
    with destination() as shop:
        hanging = 0
        while shop.pace.has_room(0):
            hanging += isinstance(shop.deliver(2, hanging={1})[0], InFlight)

        assert CONCURRENCY * HANGING_FOR_EACH <= hanging <= CONCURRENCY * (HANGING_FOR_EACH + 1)


def test_there_is_room_again_when_they_end() -> None:
    with destination() as shop:
        late = [one for one in shop.deliver(2, hanging={1, 2}) if isinstance(one, InFlight)]
        assert not shop.pace.has_room(0)

        shop.may_answer.set()
        for one in late:
            one.answer.result(60)

        assert shop.deliver(3) == [Delivered()] * 3
        assert shop.pace.has_room(0)


def test_what_was_submitted_before_new_threads_took_over_is_done_too() -> None:
    with destination() as shop:
        outcomes = shop.deliver(50, hanging={1})

        assert sum(one == Delivered() for one in outcomes) == 49
        assert NotSent() not in outcomes


def test_a_destination_that_has_become_slow_gets_no_more_calls_than_before() -> None:
    with destination() as shop:
        assert shop.deliver(4) == [Delivered()] * 4

        late = [one for one in shop.deliver(50, hanging=range(1, 51)) if isinstance(one, InFlight)]
        more = [one for one in shop.deliver(50, hanging=range(1, 51)) if isinstance(one, InFlight)]

        assert (len(late), len(more)) == (CONCURRENCY, CONCURRENCY), "new threads took over once, before it was slow"
        assert not shop.pace.has_room(0)
