"""What becomes of rows that did not leave. Pure: no database here."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.outbox import Delivered, Failed, NotSent, Outcome, Refused, Rejected, Row, Unreachable
from domain.outbox.delivery.outcomes import Change, Policy, Retries, changes, is_its_own_fault

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
PAUSE = timedelta(seconds=7)
FIRST_RETRY, LONGEST_RETRY = Retries().first, Retries().longest

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


def a_policy(*, max_attempts: int = 12, recovered_at: datetime | None = None, roll: float = 1.0) -> Policy:
    return Policy(retries=Retries(max_attempts=max_attempts), pause=PAUSE, recovered_at=recovered_at, roll=lambda: roll)


def judged(*deliveries: tuple[Row, Outcome], policy: Policy | None = None) -> Sequence[Change]:
    return changes(deliveries, policy or a_policy())


@pytest.mark.parametrize("outcome", [Delivered(), Refused("no")])
def test_what_left_is_not_rewritten(outcome: Outcome) -> None:
    assert judged((a_row(), outcome)) == []


def test_a_failure_spends_an_attempt_and_waits() -> None:
    row = a_row(attempts=2)

    assert judged((row, Failed("oops"))) == [Change(row=row, attempts=3, error="oops", wait=4 * FIRST_RETRY)]


def test_the_last_attempt_is_the_end() -> None:
    row = a_row(attempts=2)

    assert judged((row, Failed("oops")), policy=a_policy(max_attempts=3)) == [
        Change(row=row, attempts=3, error="oops", dead=True)
    ]


def test_what_can_never_succeed_is_dead_at_once() -> None:
    row = a_row()

    assert judged((row, Rejected("too large"))) == [Change(row=row, attempts=1, error="too large", dead=True)]


def test_an_outage_spends_no_attempt_and_waits_as_long_as_the_breaker() -> None:
    row = a_row(attempts=5)

    (change,) = judged((row, Unreachable("down")), policy=a_policy(max_attempts=1))

    assert change == Change(row=row, attempts=5, error="down", wait=PAUSE, unreachable=True)


def test_what_is_held_behind_a_row_that_waits_waits_with_it() -> None:
    head, second, third = a_row(1), a_row(2, attempts=4), a_row(3)

    first, *held = judged((head, Failed("oops")), (second, NotSent()), (third, NotSent()))

    assert held == [
        Change(row=second, attempts=4, wait=first.wait),
        Change(row=third, attempts=0, wait=first.wait),
    ]


def test_what_is_held_behind_an_outage_waits_with_it() -> None:
    head, second = a_row(1), a_row(2)

    _, held = judged((head, Unreachable("down")), (second, NotSent()))

    assert held == Change(row=second, attempts=0, wait=PAUSE)


def test_what_is_held_with_nothing_that_waits_before_it_stays_ready() -> None:
    assert judged((a_row(1, A), Failed("oops")), (a_row(2, B), NotSent()))[1:] == []


def test_a_rejection_lets_its_aggregate_go_on() -> None:
    dead, second, third = a_row(1), a_row(2), a_row(3)

    first, last = judged((dead, Rejected("never")), (second, Delivered()), (third, Failed("oops")))

    assert first.dead
    assert (last.row, last.wait) == (third, FIRST_RETRY)


def test_what_is_held_behind_a_dead_row_stays_ready() -> None:
    (dead,) = judged((a_row(1), Failed("oops")), (a_row(2), NotSent()), policy=a_policy(max_attempts=1))

    assert dead.dead


def test_a_row_behind_a_waiting_one_of_an_earlier_batch_waits_until_the_same_time() -> None:
    later, latest = a_row(2, waits_until=NOON), a_row(3, waits_until=NOON, attempts=1)

    assert judged((later, NotSent()), (latest, NotSent())) == [
        Change(row=later, attempts=0, until=NOON),
        Change(row=latest, attempts=1, until=NOON),
    ]


def test_what_is_held_behind_one_that_waits_until_a_time_waits_until_then() -> None:
    _, held = judged((a_row(1, waits_until=NOON), NotSent()), (a_row(2), NotSent()))

    assert (held.until, held.wait) == (NOON, None)


def test_a_server_may_ask_for_more_time_than_the_dice_give() -> None:
    asked = timedelta(minutes=3)

    (longer,) = judged((a_row(), Failed("oops", retry_after=asked)))
    (shorter,) = judged((a_row(attempts=9), Failed("oops", retry_after=FIRST_RETRY)))

    assert longer.wait == asked
    assert shorter.wait == 512 * FIRST_RETRY


@given(st.integers(0, 999), st.floats(0, 1, exclude_max=True))
def test_a_retry_comes_within_the_longest_one(attempts: int, roll: float) -> None:
    (change,) = judged((a_row(attempts=attempts), Failed("oops")), policy=a_policy(max_attempts=1_001, roll=roll))

    assert change.wait is not None and timedelta(0) <= change.wait <= LONGEST_RETRY


BEFORE, AFTER = NOON - timedelta(minutes=1), NOON + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("unreachable_at", "recovered_at", "own"),
    [
        (None, None, False),  # the first trouble anyone has seen
        (None, NOON, False),  # the first that this row has seen
        (NOON, None, False),  # nobody has found the destination up since
        (NOON, BEFORE, False),
        (NOON, AFTER, True),  # it has worked for others since
    ],
)
def test_a_row_that_alone_finds_its_destination_down_is_itself_to_blame(
    unreachable_at: datetime | None, recovered_at: datetime | None, own: bool
) -> None:
    row = a_row(unreachable_at=unreachable_at)

    assert is_its_own_fault(row, Unreachable("500"), recovered_at) is own
    (change,) = judged((row, Unreachable("500")), policy=a_policy(recovered_at=recovered_at))
    assert change.attempts == (1 if own else 0)


def test_no_row_is_to_blame_for_a_destination_that_is_asked_too_much() -> None:
    row = a_row(unreachable_at=BEFORE)

    assert not is_its_own_fault(row, Unreachable("429", throttled=True), NOON)


def test_only_an_outage_can_be_a_rows_own_fault() -> None:
    assert not is_its_own_fault(a_row(unreachable_at=BEFORE), Failed("oops"), NOON)


def test_a_row_that_is_to_blame_dies_after_its_last_attempt() -> None:
    row = a_row(attempts=1, unreachable_at=BEFORE)

    (change,) = judged((row, Unreachable("500")), policy=a_policy(max_attempts=2, recovered_at=NOON))

    assert change.dead


OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from(
    [Delivered(), Refused("r"), Rejected("e"), Failed("e"), Unreachable("e"), NotSent()]
)


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.booleans()), max_size=12), st.data())
def test_nothing_that_waits_has_a_ready_row_of_its_aggregate_behind_it(
    shape: list[tuple[UUID, bool]], data: st.DataObject
) -> None:
    """Whatever a well-behaved destination answers: what follows a row that did not leave is NotSent."""
    deliveries: list[tuple[Row, Outcome]] = []
    stuck: set[UUID] = set()
    for number, (aggregate, fresh) in enumerate(shape):
        row = a_row(number, aggregate, attempts=0 if fresh else 1, unreachable_at=None if fresh else BEFORE)
        outcome = NotSent() if aggregate in stuck else data.draw(OUTCOMES)
        if isinstance(outcome, Failed | Unreachable | NotSent):
            stuck.add(aggregate)
        deliveries.append((row, outcome))

    rewritten = {
        change.row.id: change for change in judged(*deliveries, policy=a_policy(max_attempts=2, recovered_at=NOON))
    }

    for row, _ in deliveries:
        later = [other for other, _ in deliveries if other.aggregate_id == row.aggregate_id and other.id > row.id]
        change = rewritten.get(row.id)
        if change and not change.dead:
            assert all(rewritten[other.id].wait == change.wait for other in later)
