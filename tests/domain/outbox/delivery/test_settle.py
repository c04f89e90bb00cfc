"""Settling: the outcomes of a batch are written once, by the worker that has leased the lane."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from domain.outbox import Declined, Delivered, Failed, NotSent, Obsolete, Outcome, Rejected, Unreachable
from domain.outbox.delivery.outcomes import ERROR_LENGTH
from domain.outbox.delivery.settlement import Settlement
from domain.outbox.table import outbox as table
from domain.runtime.database import now
from tests.domain.outbox.conftest import clock
from tests.support.builders import Db
from tests.support.outbox import a_lane, a_retry_policy, an_aggregate, fetched, recorded_for, row, settled, states


def settle_all(db: Db, *outcomes: Outcome, **options: Any) -> Settlement:
    """Record an event for each outcome, each of its own aggregate, and settle all of them."""
    recorded_for(db, *(an_aggregate() for _ in outcomes))
    lane = a_lane(db)
    settlement = settled(db, lane, list(zip(fetched(db, lane), outcomes, strict=True)), **options)
    assert settlement is not None
    return settlement


@pytest.mark.parametrize("outcome", [Delivered(), Declined("no"), Obsolete()])
def test_a_row_that_was_delivered_or_answered_is_processed_with_its_time(shop: Db, outcome: Outcome) -> None:
    before = clock(shop)

    settlement = settle_all(shop, outcome)

    (one,) = settlement.processed
    assert one[1] == outcome
    stored = row(shop, 1)
    assert stored.processed_at is not None and stored.processed_at > before
    assert (stored.attempts, stored.dead_at, stored.last_error) == (0, None, None)


def test_a_failure_is_written_with_its_attempt_its_error_and_its_time(shop: Db) -> None:
    before = clock(shop)

    settlement = settle_all(shop, Failed("oops"))

    stored = row(shop, 1)
    assert settlement.waiting == 1
    assert (stored.attempts, stored.last_error, stored.unreachable_at) == (1, "oops", None)
    assert before < stored.available_at < before + a_retry_policy().first + timedelta(seconds=2)


def test_a_destination_that_asks_for_more_time_gets_it(shop: Db) -> None:
    before = clock(shop)

    settle_all(shop, Failed("oops", retry_after=timedelta(minutes=5)))

    assert row(shop, 1).available_at >= before + timedelta(minutes=5)


def test_a_rejected_row_is_dead_with_its_time_and_its_error(shop: Db) -> None:
    settlement = settle_all(shop, Rejected("too large"))

    stored = row(shop, 1)
    assert [update.row.id for update in settlement.dead] == [1]
    assert (stored.attempts, stored.last_error, stored.processed_at) == (1, "too large", None)
    assert stored.dead_at is not None


def test_a_batch_with_different_outcomes_is_settled_at_once(shop: Db) -> None:
    outcomes: list[Outcome] = [Delivered(), Failed("e"), Rejected("e"), Declined("no"), NotSent(), Delivered()]

    settlement = settle_all(shop, *outcomes)

    assert states(shop) == ["processed", "waiting", "dead", "processed", "ready", "processed"]
    assert (len(settlement.processed), len(settlement.dead), settlement.waiting) == (3, 1, 1)
    assert (settlement.is_up, settlement.down) == (True, None)


@pytest.mark.parametrize(
    ("outcomes", "read_on_after"),
    [
        ([Delivered(), Delivered(), Delivered()], 3),
        ([Delivered(), Failed("e"), Rejected("e")], 3),
        ([Delivered(), NotSent(), Delivered()], 1),
        ([NotSent(), NotSent(), NotSent()], 0),
        ([Delivered(), Delivered(), NotSent()], 2),
    ],
)
def test_the_run_reads_on_before_the_first_row_that_is_still_ready(
    shop: Db, outcomes: list[Outcome], read_on_after: int
) -> None:
    assert settle_all(shop, *outcomes).read_on_after == read_on_after


@pytest.mark.parametrize(
    ("outcome", "is_up", "down"),
    [
        (Delivered(), True, None),
        (Declined("no"), True, None),
        (Rejected("never"), True, None),
        (Obsolete(), False, None),
        (Failed("oops"), False, None),
        (NotSent(), False, None),
        (Unreachable("down"), False, "down"),
    ],
)
def test_an_outcome_shows_whether_its_destination_is_up(
    shop: Db, outcome: Outcome, is_up: bool, down: str | None
) -> None:
    settlement = settle_all(shop, outcome)

    assert (settlement.is_up, settlement.down) == (is_up, down)


def test_an_error_is_stored_without_nul_and_up_to_a_limit(shop: Db) -> None:
    settle_all(shop, Failed("a\0b" + "x" * 5_000))

    assert row(shop, 1).last_error == "ab" + "x" * (ERROR_LENGTH - 2)


def test_half_a_character_in_an_error_does_not_make_the_row_the_cause_of_an_outage(shop: Db) -> None:
    settle_all(shop, Delivered(), Unreachable("half of \ud83d"))

    stored = row(shop, 2)
    assert (stored.attempts, stored.last_error) == (0, "half of ?")


def test_a_row_that_waits_behind_another_keeps_its_last_error(shop: Db) -> None:
    aggregate = an_aggregate()
    recorded_for(shop, aggregate, aggregate)
    lane = a_lane(shop)
    with shop.begin() as session:
        session.execute(update(table).where(table.c.id == 2).values(last_error="earlier"))
    first, second = fetched(shop, lane)

    settled(shop, lane, [(first, Failed("oops")), (second, NotSent())])

    assert (row(shop, 2).last_error, row(shop, 2).attempts) == ("earlier", 0)


@pytest.mark.parametrize("ended", ["processed_at", "dead_at"])
@pytest.mark.parametrize("outcome", [Delivered(), Failed("e"), Rejected("e")])
def test_a_row_that_has_meanwhile_been_processed_or_died_stays_as_it_is(shop: Db, ended: str, outcome: Outcome) -> None:
    """An operator may have discarded the row while it was in flight."""
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)
    (one,) = fetched(shop, lane)
    with shop.begin() as session:
        session.execute(update(table).values({ended: now(session)}))
    before = row(shop, 1)

    settled(shop, lane, [(one, outcome)])

    assert row(shop, 1) == before


def test_a_row_dies_after_the_last_attempt_that_its_route_allows(shop: Db) -> None:
    settle_all(shop, Failed("oops"), max_attempts=1)

    assert states(shop) == ["dead"]
