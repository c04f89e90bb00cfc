"""Ordered batches: at most one row of each aggregate a call, and none before the row ahead of it is answered."""

import time
from collections import defaultdict
from collections.abc import Sequence
from threading import Event
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.outbox import Cause, Delivered, Failed, NotSent, Outcome, Rejected, Row, Unreachable
from tests.worker.ordering.test_ordered_calls import A, B, C, some_rows
from worker.ordering import ordered_batches
from worker.ordering.ordered_batches import deliver_in_batches, encode
from worker.ordering.pace import Pace

FAILED, REJECTED, DOWN = Failed("not now"), Rejected("never"), Unreachable("down")


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has enough time, on a machine however busy."""
    monkeypatch.setattr(ordered_batches, "BATCH_SECONDS", 60.0)


class Broker:
    """Answers each row as the test says, and remembers the rows of each call."""

    def __init__(self, **answers: Outcome) -> None:
        self.calls: list[list[int]] = []
        self.answers = {int(name.removeprefix("row")): outcome for name, outcome in answers.items()}

    def __call__(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        self.calls.append([row.id for row in rows])
        return [self.answers.get(row.id, Delivered()) for row in rows]


def test_a_call_has_the_next_row_of_each_aggregate() -> None:
    broker = Broker()

    outcomes = deliver_in_batches(some_rows(A, A, B, A, C), broker, Pace(Event()))

    assert broker.calls == [[1, 3, 5], [2], [4]]
    assert outcomes == [Delivered()] * 5


def test_outcomes_come_in_the_order_of_the_rows() -> None:
    outcomes = deliver_in_batches(some_rows(A, A, B), Broker(row2=Rejected("2"), row3=Rejected("3")), Pace(Event()))

    assert outcomes == [Delivered(), Rejected("2"), Rejected("3")]


def test_with_nothing_to_send_there_is_no_call() -> None:
    broker = Broker()

    assert deliver_in_batches([], broker, Pace(Event())) == []
    assert broker.calls == []


@pytest.mark.parametrize("answer", [FAILED, REJECTED, NotSent()])
def test_rows_behind_one_that_was_not_delivered_are_not_sent_and_other_aggregates_continue(answer: Outcome) -> None:
    broker = Broker(row1=answer)

    outcomes = deliver_in_batches(some_rows(A, B, A, B), broker, Pace(Event()))

    assert outcomes == [answer, Delivered(), NotSent(), Delivered()]
    assert broker.calls == [[1, 2], [4]]


def test_nothing_more_is_sent_to_a_broker_that_is_down() -> None:
    broker = Broker(row1=NotSent(), row2=DOWN)

    outcomes = deliver_in_batches(some_rows(A, B, C, A, B, C)[:2], broker, Pace(Event()))

    assert outcomes == [NotSent(), DOWN]
    assert broker.calls == [[1, 2]]


def test_no_call_begins_when_the_process_stops() -> None:
    stopping = Event()

    def stop(rows: Sequence[Row]) -> Sequence[Outcome]:
        stopping.set()
        return [Delivered()] * len(rows)

    assert deliver_in_batches(some_rows(A, A), stop, Pace(stopping)) == [Delivered(), NotSent()]


def test_no_call_begins_when_the_time_of_the_batch_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered_batches, "BATCH_SECONDS", 0.01)

    def slowly(rows: Sequence[Row]) -> Sequence[Outcome]:
        time.sleep(0.02)
        return [Delivered()] * len(rows)

    assert deliver_in_batches(some_rows(A, A), slowly, Pace(Event())) == [Delivered(), NotSent()]


def test_an_unforeseen_error_of_the_client_library_refuses_all_that_was_sent_together() -> None:
    def breaks(_: Sequence[Row]) -> Sequence[Outcome]:
        raise RuntimeError("unforeseen")

    down = Unreachable("RuntimeError: unforeseen", cause=Cause.ERROR)
    assert deliver_in_batches(some_rows(A, A, B), breaks, Pace(Event())) == [down, NotSent(), down]


@given(
    aggregates=st.lists(st.sampled_from([A, B, C]), max_size=12),
    answers=st.lists(st.sampled_from([Delivered(), REJECTED, FAILED, DOWN, NotSent()]), min_size=12, max_size=12),
)
def test_whatever_is_answered_no_row_is_sent_past_one_that_was_not_delivered(
    aggregates: list[UUID], answers: list[Outcome]
) -> None:
    rows = some_rows(*aggregates)
    broker = Broker(**{f"row{number}": answer for number, answer in enumerate(answers, start=1)})

    outcomes = deliver_in_batches(rows, broker, Pace(Event()))

    assert all(len(set(one)) == len(one) for one in broker.calls)
    sent = [row_id for one in broker.calls for row_id in one]
    assert sorted(sent) == sorted(set(sent))
    stuck: dict[UUID, bool] = defaultdict(bool)
    for row, outcome in zip(rows, outcomes, strict=True):
        assert outcome == (answers[row.id - 1] if row.id in sent else NotSent())
        assert not (stuck[row.aggregate_id] and row.id in sent)
        stuck[row.aggregate_id] |= not isinstance(outcome, Delivered | Rejected)


def test_a_row_that_cannot_be_encoded_fails_alone() -> None:
    rows = some_rows(A, B, C)

    def write(row: Row) -> str | Rejected:
        if row.id == 2:
            raise ValueError("unforeseen")
        return REJECTED if row.id == 3 else f"row {row.id}"

    entries, outcomes = encode(rows, write)

    assert entries == [(rows[0], "row 1")]
    assert outcomes == {2: Failed("ValueError: unforeseen"), 3: REJECTED}
