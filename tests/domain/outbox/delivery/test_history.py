"""What the neighbours of a row were answered, by the history of a destination. Pure: there is no database here."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import count
from uuid import UUID, uuid4

import pytest

from domain.outbox import (
    REFUSED_IN_A_ROW,
    Cause,
    Declined,
    Delivered,
    Failed,
    NotSent,
    Obsolete,
    Outcome,
    Rejected,
    Row,
    Unreachable,
)
from domain.outbox.delivery.blame import Neighbours
from domain.outbox.delivery.history import RECOVERED_AFTER, TAKEN_FOR_EACH_REFUSED, History
from tests.support.outbox import NOON, a_fetched_row

DOWN = Unreachable("down")
TAKEN = Delivered()

ids = count(1)


def a_row(aggregate: UUID | None = None, *, refused_at: datetime | None = None) -> Row:
    return a_fetched_row(id=next(ids), aggregate_id=aggregate or uuid4(), unreachable_at=refused_at)


def seconds(number: float) -> datetime:
    return NOON + timedelta(seconds=number)


def a_history(*batches: Sequence[Outcome]) -> History:
    """The history of these batches, one a second from noon on, each row of an aggregate of its own."""
    history = History()
    for number, outcomes in enumerate(batches):
        history.add(seconds(number), [(a_row(), outcome) for outcome in outcomes])
    return history


def test_of_a_destination_that_never_took_a_row_nobody_knows_more() -> None:
    assert a_history().neighbours_of(a_row()) is Neighbours.NEVER_TAKEN
    assert a_history([DOWN]).neighbours_of(a_row()) is Neighbours.NEVER_TAKEN


@pytest.mark.parametrize("outcome", [Failed("it can't be written"), NotSent(), Obsolete()])
def test_what_was_not_answered_shows_nothing(outcome: Outcome) -> None:
    assert a_history([outcome] * 20).neighbours_of(a_row()) is Neighbours.NEVER_TAKEN


@pytest.mark.parametrize("refused", [DOWN, Rejected("400")])
def test_when_some_in_a_row_were_refused_all_are(refused: Outcome) -> None:
    few, enough = [refused] * (REFUSED_IN_A_ROW - 1), [refused] * REFUSED_IN_A_ROW

    assert a_history([TAKEN], few).neighbours_of(a_row()) is not Neighbours.ALL_REFUSED
    assert a_history([TAKEN], enough).neighbours_of(a_row()) is Neighbours.ALL_REFUSED
    assert a_history([TAKEN, *enough]).neighbours_of(a_row()) is Neighbours.ALL_REFUSED
    assert a_history([*enough, TAKEN]).neighbours_of(a_row()) is not Neighbours.ALL_REFUSED
    assert a_history(enough, [Declined("no")]).neighbours_of(a_row()) is not Neighbours.ALL_REFUSED


def test_one_aggregate_that_is_refused_again_and_again_is_not_all() -> None:
    history, aggregate = a_history([TAKEN]), uuid4()

    for number in range(20):
        history.add(seconds(number), [(a_row(aggregate), DOWN)])

    assert history.neighbours_of(a_row(aggregate)) is Neighbours.UNKNOWN


def test_a_row_that_was_never_refused_is_in_doubt() -> None:
    assert a_history([TAKEN] * 100).neighbours_of(a_row()) is Neighbours.UNKNOWN


def test_what_was_taken_in_the_batch_in_which_a_row_was_refused_shows_nothing() -> None:
    refused = a_row(refused_at=NOON)
    many: list[Outcome] = [TAKEN] * 100

    assert a_history(many).neighbours_of(refused) is Neighbours.UNKNOWN
    assert a_history([TAKEN], many).neighbours_of(refused) is Neighbours.TAKEN


@pytest.mark.parametrize("others", [0, 1, 3])
def test_many_were_refused_if_they_and_the_row_are_more_than_a_tenth(others: int) -> None:
    def neighbours(taken: int) -> Neighbours:
        since: list[Outcome] = [*[DOWN] * others, *[TAKEN] * taken]
        return a_history([TAKEN], since).neighbours_of(a_row(refused_at=NOON))

    enough = (others + 1) * TAKEN_FOR_EACH_REFUSED
    assert neighbours(enough) is Neighbours.TAKEN
    assert neighbours(enough - 1) is Neighbours.MANY_REFUSED


def test_a_row_that_is_refused_again_and_again_counts_once() -> None:
    aggregate = uuid4()
    others: list[Outcome] = [TAKEN] * TAKEN_FOR_EACH_REFUSED
    history = a_history([TAKEN], others)
    for number in range(3):
        history.add(seconds(2 + number), [(a_row(aggregate), DOWN)])

    assert history.neighbours_of(a_row(aggregate, refused_at=NOON)) is Neighbours.TAKEN


def test_a_destination_that_was_down_recovers_before_anybody_is_at_fault() -> None:
    history = a_history([TAKEN])
    history.begin_recovery(seconds(-1))
    refused = a_row(refused_at=NOON)

    history.add(seconds(1), [(a_row(), TAKEN)] * (RECOVERED_AFTER - 1))
    assert history.neighbours_of(refused) is Neighbours.RECOVERING

    history.add(seconds(2), [(a_row(), TAKEN)])
    assert history.neighbours_of(refused) is Neighbours.TAKEN


def test_a_refusal_in_an_outage_that_is_over_is_no_sign_of_a_fault_when_the_next_outage_begins() -> None:
    history = a_history([TAKEN])
    history.begin_recovery(seconds(1))
    history.add(seconds(2), [(a_row(), TAKEN)] * RECOVERED_AFTER)

    assert history.neighbours_of(a_row(refused_at=NOON)) is Neighbours.UNKNOWN
    history.add(seconds(3), [(a_row(), TAKEN)] * RECOVERED_AFTER)
    assert history.neighbours_of(a_row(refused_at=seconds(2))) is Neighbours.TAKEN


def test_a_destination_is_gone_when_several_aggregates_in_a_row_are_told_so() -> None:
    gone, once = Unreachable("410", cause=Cause.GONE), a_row()

    assert a_history([TAKEN], [gone, gone]).is_gone
    assert not a_history([gone, gone], [TAKEN]).is_gone
    assert not a_history([gone, gone, DOWN]).is_gone
    alone = a_history()
    for _ in range(9):
        alone.add(NOON, [(once, gone)])
    assert not alone.is_gone


def late_refusals(history: History, *, since: float) -> None:
    """Add calls that began before that second, hung, and end one after the other at second 10."""
    for _ in range(REFUSED_IN_A_ROW):
        history.add(seconds(10), [(a_row(), DOWN)], since=seconds(since))


def test_calls_that_hung_say_nothing_of_a_destination_that_has_taken_others_since() -> None:
    history = a_history([TAKEN], [TAKEN])

    late_refusals(history, since=0.5)

    assert history.neighbours_of(a_row()) is Neighbours.UNKNOWN


def test_when_nothing_was_taken_since_calls_began_to_hang_all_are_refused() -> None:
    history = a_history([TAKEN], [TAKEN])

    late_refusals(history, since=1.5)

    assert history.neighbours_of(a_row()) is Neighbours.ALL_REFUSED
