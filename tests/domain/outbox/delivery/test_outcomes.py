"""How rows that were not delivered are updated. Pure: there is no database here."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.outbox import Declined, Delivered, Delivery, Failed, NotSent, Obsolete, Outcome, Rejected, Row, Unreachable
from domain.outbox.delivery.outcomes import (
    Circumstances,
    RetryPolicy,
    RowUpdate,
    is_its_own_fault,
    row_updates,
    rows_at_fault,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
OPEN_FOR = timedelta(seconds=7)
FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=1), timedelta(minutes=10)

A, B = uuid4(), uuid4()


def a_row(
    row_id: int = 1,
    aggregate: UUID = A,
    *,
    attempts: int = 0,
    unreachable_at: datetime | None = None,
    waits_until: datetime | None = None,
) -> Row:
    return Row(
        row_id, uuid4(), aggregate, "booking.created", "{}", "{}", attempts, NOON, unreachable_at, waits_until, NOON
    )


def updates_of(
    *deliveries: Delivery, max_attempts: int = 12, recovered_at: datetime | None = None, roll: float = 1.0
) -> Sequence[RowUpdate]:
    circumstances = Circumstances(
        retry_policy=RetryPolicy(max_attempts=max_attempts, first=FIRST_RETRY, longest=LONGEST_RETRY),
        open_for=OPEN_FOR,
        at_fault=rows_at_fault(deliveries, recovered_at),
        roll=lambda: roll,
    )
    return row_updates(deliveries, circumstances)


@pytest.mark.parametrize("outcome", [Delivered(), Declined("no"), Obsolete()])
def test_a_row_that_was_delivered_or_answered_is_not_updated(outcome: Outcome) -> None:
    assert updates_of((a_row(), outcome)) == []


def test_a_failure_spends_an_attempt_and_waits() -> None:
    row = a_row(attempts=2)

    assert updates_of((row, Failed("oops"))) == [RowUpdate(row=row, attempts=3, error="oops", wait=4 * FIRST_RETRY)]


def test_after_its_last_attempt_a_row_is_dead() -> None:
    row = a_row(attempts=2)

    assert updates_of((row, Failed("oops")), max_attempts=3) == [
        RowUpdate(row=row, attempts=3, error="oops", dead=True)
    ]


def test_a_rejected_row_is_dead_at_once() -> None:
    row = a_row()

    assert updates_of((row, Rejected("too large"))) == [RowUpdate(row=row, attempts=1, error="too large", dead=True)]


def test_in_an_outage_a_row_spends_no_attempt_and_waits_for_as_long_as_the_breaker_is_open() -> None:
    row = a_row(attempts=5)

    (update,) = updates_of((row, Unreachable("down")), max_attempts=1)

    assert update == RowUpdate(row=row, attempts=5, error="down", wait=OPEN_FOR, unreachable=True)


def test_rows_behind_one_that_failed_wait_with_it() -> None:
    head, second, third = a_row(1), a_row(2, attempts=4), a_row(3)

    first, *behind = updates_of((head, Failed("oops")), (second, NotSent()), (third, NotSent()))

    assert behind == [
        RowUpdate(row=second, attempts=4, wait=first.wait),
        RowUpdate(row=third, attempts=0, wait=first.wait),
    ]


def test_a_row_behind_one_that_met_an_outage_waits_with_it() -> None:
    head, second = a_row(1), a_row(2)

    _, behind = updates_of((head, Unreachable("down")), (second, NotSent()))

    assert behind == RowUpdate(row=second, attempts=0, wait=OPEN_FOR)


def test_a_row_that_was_not_sent_stays_ready_if_no_row_of_its_aggregate_waits_before_it() -> None:
    assert updates_of((a_row(1, A), Failed("oops")), (a_row(2, B), NotSent()))[1:] == []


def test_after_a_rejected_row_its_aggregate_continues() -> None:
    dead, second, third = a_row(1), a_row(2), a_row(3)

    first, last = updates_of((dead, Rejected("never")), (second, Delivered()), (third, Failed("oops")))

    assert first.dead
    assert (last.row, last.wait) == (third, FIRST_RETRY)


def test_a_row_behind_a_dead_one_stays_ready() -> None:
    (dead,) = updates_of((a_row(1), Failed("oops")), (a_row(2), NotSent()), max_attempts=1)

    assert dead.dead


def test_a_row_behind_a_waiting_one_of_an_earlier_batch_waits_until_the_same_time() -> None:
    later, latest = a_row(2, waits_until=NOON), a_row(3, waits_until=NOON, attempts=1)

    assert updates_of((later, NotSent()), (latest, NotSent())) == [
        RowUpdate(row=later, attempts=0, until=NOON),
        RowUpdate(row=latest, attempts=1, until=NOON),
    ]


def test_a_row_behind_one_that_waits_until_a_time_waits_until_then() -> None:
    _, behind = updates_of((a_row(1, waits_until=NOON), NotSent()), (a_row(2), NotSent()))

    assert (behind.until, behind.wait) == (NOON, None)


def test_a_server_may_ask_for_more_time_than_the_backoff_gives() -> None:
    asked = timedelta(minutes=3)

    (longer,) = updates_of((a_row(), Failed("oops", retry_after=asked)))
    (shorter,) = updates_of((a_row(attempts=9), Failed("oops", retry_after=FIRST_RETRY)))

    assert longer.wait == asked
    assert shorter.wait == 512 * FIRST_RETRY


@given(st.integers(0, 999), st.floats(0, 1, exclude_max=True))
def test_no_retry_waits_longer_than_the_longest_one(attempts: int, roll: float) -> None:
    (update,) = updates_of((a_row(attempts=attempts), Failed("oops")), max_attempts=1_001, roll=roll)

    assert update.wait is not None and timedelta(0) <= update.wait <= LONGEST_RETRY


BEFORE, AFTER = NOON - timedelta(minutes=1), NOON + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("unreachable_at", "recovered_at", "own"),
    [
        (None, None, False),  # nobody has found the destination down before
        (None, NOON, False),  # this row has not found it down before
        (NOON, None, False),  # it has not recovered since
        (NOON, BEFORE, False),
        (NOON, AFTER, True),  # it has worked for others since
    ],
)
def test_a_row_is_itself_the_cause_if_its_destination_has_recovered_since_the_row_found_it_down(
    unreachable_at: datetime | None, recovered_at: datetime | None, own: bool
) -> None:
    row = a_row(unreachable_at=unreachable_at)

    assert is_its_own_fault(row, Unreachable("500"), recovered_at) is own
    (update,) = updates_of((row, Unreachable("500")), recovered_at=recovered_at)
    assert update.attempts == (1 if own else 0)


def test_no_row_is_the_cause_of_throttling() -> None:
    row = a_row(unreachable_at=BEFORE)

    assert not is_its_own_fault(row, Unreachable("429", throttled=True), NOON)


def test_only_an_outage_can_be_the_fault_of_a_row() -> None:
    assert not is_its_own_fault(a_row(unreachable_at=BEFORE), Failed("oops"), NOON)


def test_a_row_that_is_itself_the_cause_dies_after_its_last_attempt() -> None:
    row = a_row(attempts=1, unreachable_at=BEFORE)

    (update,) = updates_of((row, Unreachable("500")), max_attempts=2, recovered_at=NOON)

    assert update.dead


OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from(
    [Delivered(), Declined("r"), Rejected("e"), Failed("e"), Unreachable("e"), NotSent()]
)


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.booleans()), max_size=12), st.data())
def test_a_row_that_waits_never_has_a_ready_row_of_its_aggregate_behind_it(
    shape: list[tuple[UUID, bool]], data: st.DataObject
) -> None:
    """Whatever the outcomes are, as long as the rows of an aggregate behind an undelivered one are NotSent."""
    deliveries: list[Delivery] = []
    stopped: set[UUID] = set()
    for number, (aggregate, fresh) in enumerate(shape):
        row = a_row(number, aggregate, attempts=0 if fresh else 1, unreachable_at=None if fresh else BEFORE)
        outcome = NotSent() if aggregate in stopped else data.draw(OUTCOMES)
        if isinstance(outcome, Failed | Unreachable | NotSent):
            stopped.add(aggregate)
        deliveries.append((row, outcome))

    updates = {update.row.id: update for update in updates_of(*deliveries, max_attempts=2, recovered_at=NOON)}

    for row, _ in deliveries:
        later = [other for other, _ in deliveries if other.aggregate_id == row.aggregate_id and other.id > row.id]
        update = updates.get(row.id)
        if update and not update.dead:
            assert all(updates[other.id].wait == update.wait for other in later)
