"""Ordered calls: in order within an aggregate, concurrent across aggregates, and none after the batch has ended."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError, Event, Lock
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.outbox import (
    REFUSED_IN_A_ROW,
    Declined,
    Delivered,
    Failed,
    InFlight,
    NotSent,
    Obsolete,
    Outcome,
    Postponed,
    Rejected,
    Row,
    Unreachable,
)
from tests.support.outbox import NOON, a_fetched_row
from worker.ordering import batch_of_calls
from worker.ordering.batch_of_calls import LEAST_PATIENCE_SECONDS
from worker.ordering.calling_threads import HANGING_FOR_EACH
from worker.ordering.ordered_calls import OrderedCalls
from worker.ordering.pace import Pace

A, B, C = uuid4(), uuid4(), uuid4()


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has enough time, on a machine however busy."""
    monkeypatch.setattr(batch_of_calls, "BATCH_SECONDS", 60.0)


DOWN = Unreachable("down")


def some_rows(*aggregates: UUID) -> Sequence[Row]:
    return [a_fetched_row(id=row_id, aggregate_id=aggregate) for row_id, aggregate in enumerate(aggregates, start=1)]


class Called:
    """Answers each row as the test says, and remembers the order of the calls."""

    def __init__(self, **answers: Outcome) -> None:
        self.ids: list[int] = []
        self.answers = {int(name.removeprefix("row")): outcome for name, outcome in answers.items()}

    def __call__(self, row: Row) -> Outcome:
        self.ids.append(row.id)
        return self.answers.get(row.id, Delivered())


@pytest.fixture
def one_by_one() -> Iterator[OrderedCalls]:
    calls = OrderedCalls(1, Pace(Event()), timeout_seconds=10)
    yield calls
    calls.close()


@pytest.fixture
def at_once() -> Iterator[OrderedCalls]:
    calls = OrderedCalls(3, Pace(Event()), timeout_seconds=10)
    yield calls
    calls.close()


def test_outcomes_come_in_the_order_of_the_rows(at_once: OrderedCalls) -> None:
    def answer(row: Row) -> Outcome:
        time.sleep(0.01 * (4 - row.id))
        return Rejected(str(row.id))

    outcomes = at_once.deliver(some_rows(A, B, C), answer)

    assert outcomes == [Rejected("1"), Rejected("2"), Rejected("3")]


def test_with_nothing_to_send_there_is_no_call(one_by_one: OrderedCalls) -> None:
    assert one_by_one.deliver([], Called()) == []


def test_the_rows_of_an_aggregate_are_sent_one_after_the_other(at_once: OrderedCalls) -> None:
    called = Called()

    at_once.deliver(some_rows(A, B, A, B, A), called)

    assert [one for one in called.ids if one in (1, 3, 5)] == [1, 3, 5]
    assert [one for one in called.ids if one in (2, 4)] == [2, 4]


def test_aggregates_are_sent_at_once(at_once: OrderedCalls) -> None:
    together = Barrier(3)

    def answer(_: Row) -> Outcome:
        together.wait(timeout=5)
        return Delivered()

    assert at_once.deliver(some_rows(A, B, C), answer) == [Delivered()] * 3


def test_no_aggregate_is_sent_twice_at_once(at_once: OrderedCalls) -> None:
    together = Barrier(2)

    def answer(_: Row) -> Outcome:
        try:
            together.wait(timeout=0.05)
        except BrokenBarrierError:
            return Delivered()
        return Failed("two calls of one aggregate met")

    assert at_once.deliver(some_rows(A, A), answer) == [Delivered()] * 2


@pytest.mark.parametrize("outcome", [Delivered(), Declined("no"), Obsolete()])
def test_after_a_row_that_was_delivered_or_answered_its_aggregate_continues(
    one_by_one: OrderedCalls, outcome: Outcome
) -> None:
    called = Called(row1=outcome)

    assert one_by_one.deliver(some_rows(A, A), called) == [outcome, Delivered()]


@pytest.mark.parametrize("outcome", [Failed("oops"), Rejected("never"), NotSent()])
def test_a_row_that_was_not_delivered_stops_its_aggregate_and_no_other(
    one_by_one: OrderedCalls, outcome: Outcome
) -> None:
    called = Called(row1=outcome)

    outcomes = one_by_one.deliver(some_rows(A, A, B, A), called)

    assert outcomes == [outcome, NotSent(), Delivered(), NotSent()]
    assert called.ids == [1, 3]


def test_when_a_destination_that_never_took_a_row_is_down_no_call_begins(one_by_one: OrderedCalls) -> None:
    called = Called(row1=DOWN)

    assert one_by_one.deliver(some_rows(A, B, C), called) == [DOWN, NotSent(), NotSent()]
    assert called.ids == [1]


@pytest.mark.parametrize("refused", [DOWN, Rejected("400")])
def test_a_destination_that_took_rows_is_down_when_some_in_a_row_were_refused(
    one_by_one: OrderedCalls, refused: Outcome
) -> None:
    called = Called(**{f"row{number}": refused for number in range(2, 20)})

    one_by_one.deliver(some_rows(*(uuid4() for _ in range(20))), called)

    assert called.ids == [*range(1, 2 + REFUSED_IN_A_ROW)]


def test_one_row_that_is_refused_among_others_stops_no_other_aggregate(one_by_one: OrderedCalls) -> None:
    called = Called(row2=DOWN)

    assert one_by_one.deliver(some_rows(A, B, C, B), called) == [Delivered(), DOWN, Delivered(), NotSent()]


def test_a_call_that_raises_fails_its_row_alone(one_by_one: OrderedCalls) -> None:
    def answer(row: Row) -> Outcome:
        if row.id == 1:
            raise ValueError("poison")
        return Delivered()

    outcomes = one_by_one.deliver(some_rows(A, A, B), answer)

    assert outcomes == [Failed("ValueError: poison"), NotSent(), Delivered()]


def test_no_call_begins_after_the_signal_to_stop() -> None:
    stopping = Event()
    calls = OrderedCalls(1, Pace(stopping), timeout_seconds=10)

    def answer(_: Row) -> Outcome:
        stopping.set()
        return Delivered()

    outcomes = calls.deliver(some_rows(A, A, B), answer)
    calls.close()

    assert outcomes == [Delivered(), NotSent(), NotSent()]


def test_no_call_begins_when_the_time_of_the_batch_is_over(
    one_by_one: OrderedCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_of_calls, "BATCH_SECONDS", 0.01)

    def slow(_: Row) -> Outcome:
        time.sleep(0.02)
        return Delivered()

    assert one_by_one.deliver(some_rows(A, A, B), slow) == [Delivered(), NotSent(), NotSent()]


def test_two_batches_at_once_do_not_mix(at_once: OrderedCalls) -> None:
    """Two lanes of one destination share its threads."""
    with ThreadPoolExecutor(2) as lanes:
        down = lanes.submit(at_once.deliver, some_rows(A, A), Called(row1=Unreachable("down")))
        fine = lanes.submit(at_once.deliver, some_rows(B, B), Called())

    assert down.result() == [Unreachable("down"), NotSent()]
    assert fine.result() == [Delivered()] * 2


def test_no_more_calls_run_at_once_than_the_destination_allows(at_once: OrderedCalls) -> None:
    running, most, lock = 0, 0, Lock()

    def answer(_: Row) -> Outcome:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        return Delivered()

    at_once.deliver(some_rows(*(uuid4() for _ in range(30))), answer)

    assert most == 3


OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from(
    [Delivered(), Delivered(), Declined("r"), Obsolete(), Rejected("e"), Failed("e"), Unreachable("e")]
)


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), OUTCOMES), max_size=20))
def test_nothing_is_sent_behind_a_row_of_its_aggregate_that_was_not_delivered(plan: list[tuple[UUID, Outcome]]) -> None:
    rows = some_rows(*(aggregate for aggregate, _ in plan))
    calls = OrderedCalls(2, Pace(Event()), timeout_seconds=10)

    outcomes = calls.deliver(rows, lambda row: plan[row.id - 1][1])
    calls.close()

    assert len(outcomes) == len(rows)
    stuck = set()
    for row, outcome in zip(rows, outcomes, strict=True):
        assert row.aggregate_id not in stuck or outcome == NotSent()
        assert outcome in (plan[row.id - 1][1], NotSent())
        if isinstance(outcome, Failed | Unreachable | NotSent):
            stuck.add(row.aggregate_id)


def test_a_call_that_hangs_keeps_no_answer_of_its_neighbours(at_once: OrderedCalls) -> None:
    may_answer, called = Event(), Called()

    def answer(row: Row) -> Outcome:
        called(row)
        if row.id == 1:
            assert may_answer.wait(60)
        return Delivered()

    hanging, behind, neighbour, another = at_once.deliver(some_rows(A, A, B, B), answer)

    assert (behind, neighbour, another) == (NotSent(), Delivered(), Delivered())
    assert isinstance(hanging, InFlight) and not hanging.answer.done()
    may_answer.set()
    assert hanging.answer.result(60) == Delivered()
    at_once.close()
    assert 2 not in called.ids, "Nobody waits for its outcome any more, so it may not be sent."


def test_calls_that_are_all_as_slow_are_waited_for(at_once: OrderedCalls) -> None:
    def answer(_: Row) -> Outcome:
        time.sleep(2 * LEAST_PATIENCE_SECONDS)
        return Delivered()

    assert at_once.deliver(some_rows(A, B, C, A, B, C), answer) == [Delivered()] * 6


def test_a_batch_of_which_nothing_is_answered_is_not_waited_for(
    at_once: OrderedCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_of_calls, "FIRST_ANSWER_SECONDS", 0.01)
    may_answer = Event()

    def answer(_: Row) -> Outcome:
        assert may_answer.wait(60)
        return Delivered()

    outcomes = at_once.deliver(some_rows(*(uuid4() for _ in range(5))), answer)

    assert sum(isinstance(outcome, InFlight) for outcome in outcomes) == 3
    assert sum(outcome == NotSent() for outcome in outcomes) == 2
    may_answer.set()


def test_while_many_calls_hang_a_row_that_was_refused_before_is_postponed() -> None:
    may_answer, calls = Event(), OrderedCalls(1, Pace(Event()), timeout_seconds=10)
    hung, refused_before, fresh = some_rows(A, B, C)

    def answer(row: Row) -> Outcome:
        assert row != hung or may_answer.wait(60)
        return Delivered()

    for _ in range(HANGING_FOR_EACH // 2):
        # Others are answered in time, so each call that hangs gets another thread in its place.
        calls.deliver([fresh], answer)
        calls.deliver([hung], answer)
    refused_before = refused_before._replace(unreachable_at=NOON)
    behind = a_fetched_row(id=4, aggregate_id=B)

    assert calls.deliver([refused_before, fresh, behind], answer) == [Postponed(), Delivered(), NotSent()]
    may_answer.set()
    calls.close()


def test_while_few_calls_hang_a_row_that_was_refused_before_is_sent() -> None:
    (row,) = some_rows(A)
    calls = OrderedCalls(1, Pace(Event()), timeout_seconds=10)

    assert calls.deliver([row._replace(unreachable_at=NOON)], lambda _: Delivered()) == [Delivered()]
    calls.close()
