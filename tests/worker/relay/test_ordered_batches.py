"""Sending in rounds: at most one row of each aggregate at a time, and none before the one ahead is answered for."""

import time
from collections import defaultdict
from collections.abc import Sequence
from threading import Event
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.outbox import Delivered, Failed, NotSent, Outcome, Rejected, Row, Unreachable
from tests.worker.relay.test_ordered_calls import A, B, C, some_rows
from worker.relay import ordered_batches
from worker.relay.ordered_batches import in_ordered_batches, written

FAILED, REJECTED, DOWN = Failed("not now"), Rejected("never"), Unreachable("down")


class Broker:
    """Answers as it is told, by row, and notes what each round held."""

    def __init__(self, **answers: Outcome) -> None:
        self.rounds: list[list[int]] = []
        self.answers = {int(name.removeprefix("row")): outcome for name, outcome in answers.items()}

    def __call__(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        self.rounds.append([row.id for row in rows])
        return [self.answers.get(row.id, Delivered()) for row in rows]


def test_a_round_holds_the_next_row_of_each_aggregate() -> None:
    broker = Broker()

    outcomes = in_ordered_batches(some_rows(A, A, B, A, C), broker, Event())

    assert broker.rounds == [[1, 3, 5], [2], [4]]
    assert outcomes == [Delivered()] * 5


def test_outcomes_come_in_the_order_of_the_rows() -> None:
    outcomes = in_ordered_batches(some_rows(A, A, B), Broker(row2=Rejected("2"), row3=Rejected("3")), Event())

    assert outcomes == [Delivered(), Rejected("2"), Rejected("3")]


def test_nothing_to_send_is_no_round() -> None:
    broker = Broker()

    assert in_ordered_batches([], broker, Event()) == []
    assert broker.rounds == []


@pytest.mark.parametrize("answer", [FAILED, NotSent()])
def test_what_follows_a_row_that_did_not_leave_is_held_and_others_go_on(answer: Outcome) -> None:
    broker = Broker(row1=answer)

    outcomes = in_ordered_batches(some_rows(A, B, A, B), broker, Event())

    assert outcomes == [answer, Delivered(), NotSent(), Delivered()]
    assert broker.rounds == [[1, 2], [4]]


def test_a_dead_row_lets_its_aggregate_go_on() -> None:
    assert in_ordered_batches(some_rows(A, A), Broker(row1=REJECTED), Event()) == [REJECTED, Delivered()]


def test_nothing_more_is_sent_to_a_broker_that_is_down() -> None:
    broker = Broker(row2=DOWN)

    outcomes = in_ordered_batches(some_rows(A, B, A, B), broker, Event())

    assert outcomes == [Delivered(), DOWN, NotSent(), NotSent()]
    assert broker.rounds == [[1, 2]]


def test_no_round_begins_when_the_process_stops() -> None:
    stopping = Event()

    def stop(rows: Sequence[Row]) -> Sequence[Outcome]:
        stopping.set()
        return [Delivered()] * len(rows)

    assert in_ordered_batches(some_rows(A, A), stop, stopping) == [Delivered(), NotSent()]


def test_no_round_begins_when_the_time_of_the_batch_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "BATCH_SECONDS", 0.01)

    def slowly(rows: Sequence[Row]) -> Sequence[Outcome]:
        time.sleep(0.02)
        return [Delivered()] * len(rows)

    assert in_ordered_batches(some_rows(A, A), slowly, Event()) == [Delivered(), NotSent()]


def test_what_a_library_did_not_foresee_is_an_outage() -> None:
    def breaks(_: Sequence[Row]) -> Sequence[Outcome]:
        raise RuntimeError("unforeseen")

    down = Unreachable("RuntimeError: unforeseen")
    assert in_ordered_batches(some_rows(A, A, B), breaks, Event()) == [down, NotSent(), down]


@given(
    aggregates=st.lists(st.sampled_from([A, B, C]), max_size=12),
    answers=st.lists(st.sampled_from([Delivered(), REJECTED, FAILED, DOWN, NotSent()]), min_size=12, max_size=12),
)
def test_whatever_is_answered_no_row_is_sent_past_one_that_did_not_leave(
    aggregates: list[UUID], answers: list[Outcome]
) -> None:
    rows = some_rows(*aggregates)
    broker = Broker(**{f"row{number}": answer for number, answer in enumerate(answers, start=1)})

    outcomes = in_ordered_batches(rows, broker, Event())

    assert all(len(set(one)) == len(one) for one in broker.rounds)
    sent = [row_id for one in broker.rounds for row_id in one]
    assert sorted(sent) == sorted(set(sent))
    stuck: dict[UUID, bool] = defaultdict(bool)
    for row, outcome in zip(rows, outcomes, strict=True):
        assert outcome == (answers[row.id - 1] if row.id in sent else NotSent())
        assert not (stuck[row.aggregate_id] and row.id in sent)
        stuck[row.aggregate_id] |= not isinstance(outcome, Delivered | Rejected)


def test_a_row_that_can_not_be_written_fails_alone() -> None:
    rows = some_rows(A, B, C)

    def write(row: Row) -> str | Rejected:
        if row.id == 2:
            raise ValueError("unforeseen")
        return REJECTED if row.id == 3 else f"row {row.id}"

    entries, outcomes = written(rows, write)

    assert entries == [(rows[0], "row 1")]
    assert outcomes == {2: Failed("ValueError: unforeseen"), 3: REJECTED}
