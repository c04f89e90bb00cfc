"""How rows that were not delivered are updated. Pure: there is no database here."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.outbox import Declined, Delivered, Delivery, Failed, NotSent, Obsolete, Outcome, Rejected, Row, Unreachable
from domain.outbox.delivery.blame import Verdict
from domain.outbox.delivery.outcomes import LONGEST_RETRY_AFTER
from domain.outbox.delivery.row_updates import (
    FIRST_DOUBT,
    LONGEST_DOUBT,
    Circumstances,
    RetryPolicy,
    RowUpdate,
    row_updates,
)
from tests.support.outbox import NOON, a_fetched_row

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
    tried = {"attempts": attempts, "unreachable_at": unreachable_at, "waits_until": waits_until}
    return a_fetched_row(id=row_id, aggregate_id=aggregate, **tried)


def updates_of(
    *deliveries: Delivery, max_attempts: int = 12, verdict: Verdict | None = None, roll: float = 1.0
) -> Sequence[RowUpdate]:
    """Return the updates, with one verdict for all rows, or with that which each has if nothing else is known."""
    circumstances = Circumstances(
        RetryPolicy(max_attempts=max_attempts, first=FIRST_RETRY, longest=LONGEST_RETRY),
        verdicts={row.id: verdict or VERDICTS.get(type(outcome), Verdict.DOWN) for row, outcome in deliveries},
        waits={row.aggregate_id: row.waits_until for row, _ in deliveries if row.waits_until},
        at=NOON,
        open_for=OPEN_FOR,
        roll=lambda: roll,
    )
    return row_updates(deliveries, circumstances)


VERDICTS = {Failed: Verdict.AT_FAULT, Rejected: Verdict.DEAD}


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

    assert updates_of((row, Rejected("too large"))) == [
        RowUpdate(row=row, attempts=1, error="too large", dead=True, refused=True)
    ]


def test_in_an_outage_a_row_spends_no_attempt_and_waits_for_as_long_as_the_breaker_is_open() -> None:
    row = a_row(attempts=5)

    (update,) = updates_of((row, Unreachable("down")), max_attempts=1)

    assert update == RowUpdate(row=row, attempts=5, error="down", wait=OPEN_FOR, refused=True)


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


@pytest.mark.parametrize(
    ("last", "bounds"),
    [
        (None, (FIRST_DOUBT / 2, FIRST_DOUBT)),
        (timedelta(seconds=3), (timedelta(seconds=3), timedelta(seconds=6))),
        (timedelta(days=3), (LONGEST_DOUBT / 2, LONGEST_DOUBT)),
    ],
)
@pytest.mark.parametrize("roll", [0.0, 1.0])
def test_a_row_in_doubt_spends_no_attempt_and_waits_longer_each_time(
    last: timedelta | None, bounds: tuple[timedelta, timedelta], roll: float
) -> None:
    row = a_row(attempts=4, unreachable_at=NOON - last if last else None)

    (update,) = updates_of((row, Unreachable("500")), verdict=Verdict.IN_DOUBT, roll=roll)

    assert update == RowUpdate(row=row, attempts=4, error="500", refused=True, wait=bounds[int(roll)])


def test_a_row_in_doubt_waits_as_long_as_its_destination_asks_within_reason() -> None:
    def wait(asked: timedelta) -> timedelta | None:
        (update,) = updates_of((a_row(), Unreachable("429", retry_after=asked)), verdict=Verdict.IN_DOUBT)
        return update.wait

    assert wait(timedelta(minutes=3)) == timedelta(minutes=3)
    assert wait(timedelta(days=3)) == LONGEST_RETRY_AFTER


def test_a_row_at_fault_spends_an_attempt_and_dies_after_its_last_one() -> None:
    row = a_row(attempts=1)

    (waits,) = updates_of((row, Unreachable("500")), verdict=Verdict.AT_FAULT)
    (dies,) = updates_of((row, Unreachable("500")), verdict=Verdict.AT_FAULT, max_attempts=2)

    assert (waits.attempts, waits.wait, waits.refused) == (2, 2 * FIRST_RETRY, True)
    assert (dies.attempts, dies.dead) == (2, True)


def test_a_rejected_row_waits_when_everybody_is_answered_so() -> None:
    row = a_row()

    assert updates_of((row, Rejected("400")), verdict=Verdict.DOWN) == [
        RowUpdate(row=row, attempts=0, error="400", refused=True, wait=OPEN_FOR)
    ]


OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from(
    [Delivered(), Declined("r"), Rejected("e"), Failed("e"), Unreachable("e"), NotSent()]
)


@given(st.lists(st.sampled_from([A, B]), max_size=12), st.data())
def test_a_row_that_waits_never_has_a_ready_row_of_its_aggregate_behind_it(
    aggregates: list[UUID], data: st.DataObject
) -> None:
    """Whatever the outcomes and the verdicts are, as long as the rows of an aggregate behind one that was not taken
    are NotSent.
    """
    deliveries: list[Delivery] = []
    stopped: set[UUID] = set()
    for number, aggregate in enumerate(aggregates):
        outcome = NotSent() if aggregate in stopped else data.draw(OUTCOMES)
        if not isinstance(outcome, Delivered | Declined):
            stopped.add(aggregate)
        deliveries.append((a_row(number, aggregate, attempts=data.draw(st.integers(0, 1))), outcome))

    verdict = data.draw(st.sampled_from(Verdict))
    updates = {update.row.id: update for update in updates_of(*deliveries, max_attempts=2, verdict=verdict)}

    for row, _ in deliveries:
        later = [other for other, _ in deliveries if other.aggregate_id == row.aggregate_id and other.id > row.id]
        update = updates.get(row.id)
        if update and not update.dead:
            assert all(updates[other.id].wait == update.wait for other in later)
