"""Settling: what became of a batch is written once, by whoever holds the lane."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from domain.outbox import Delivered, Failed, NotSent, Obsolete, Outcome, Refused, Rejected, Unreachable
from domain.outbox.delivery.outcomes import ERROR_LENGTH, Retries
from domain.outbox.delivery.settle import Settlement
from domain.outbox.table import outbox as table
from domain.runtime.database import now
from tests.support.builders import Db
from tests.support.outbox import a_lane, an_aggregate, fetched, recorded_for, row, settled, states, with_shop


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def settle_all(db: Db, *outcomes: Outcome, **options: Any) -> Settlement:
    """Promise as many rows as there are outcomes, each of its own aggregate, and settle them."""
    recorded_for(db, *(an_aggregate() for _ in outcomes))
    lane = a_lane(db)
    settlement = settled(db, lane, list(zip(fetched(db, lane), outcomes, strict=True)), **options)
    assert settlement is not None
    return settlement


@pytest.mark.parametrize("outcome", [Delivered(), Refused("no"), Obsolete()])
def test_a_promise_that_was_kept_is_processed_with_its_time(shop: Db, outcome: Outcome) -> None:
    with shop.begin() as session:
        before = now(session)

    settlement = settle_all(shop, outcome)

    (one,) = settlement.processed
    assert one[1] == outcome
    stored = row(shop, 1)
    assert stored.processed_at is not None and stored.processed_at > before
    assert (stored.attempts, stored.dead_at, stored.last_error) == (0, None, None)


def test_a_failure_is_written_with_its_attempt_its_error_and_its_time(shop: Db) -> None:
    with shop.begin() as session:
        before = now(session)

    settlement = settle_all(shop, Failed("oops"))

    stored = row(shop, 1)
    assert settlement.waiting == 1
    assert (stored.attempts, stored.last_error, stored.unreachable_at) == (1, "oops", None)
    assert before < stored.available_at < before + Retries().first + timedelta(seconds=2)


def test_a_wish_for_more_time_is_kept_to(shop: Db) -> None:
    with shop.begin() as session:
        before = now(session)

    settle_all(shop, Failed("oops", retry_after=timedelta(minutes=5)))

    assert row(shop, 1).available_at >= before + timedelta(minutes=5)


def test_a_rejection_is_dead_with_its_time_and_its_error(shop: Db) -> None:
    settlement = settle_all(shop, Rejected("too large"))

    stored = row(shop, 1)
    assert [change.row.id for change in settlement.dead] == [1]
    assert (stored.attempts, stored.last_error, stored.processed_at) == (1, "too large", None)
    assert stored.dead_at is not None


def test_a_mixed_batch_is_settled_at_once(shop: Db) -> None:
    outcomes: list[Outcome] = [Delivered(), Failed("e"), Rejected("e"), Refused("no"), NotSent(), Delivered()]

    settlement = settle_all(shop, *outcomes)

    assert states(shop) == ["processed", "waiting", "dead", "processed", "ready", "processed"]
    assert (len(settlement.processed), len(settlement.dead), settlement.waiting) == (3, 1, 1)
    assert (settlement.is_up, settlement.is_down, settlement.is_in_doubt) == (True, False, False)


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
def test_this_hold_reads_on_before_the_first_row_that_is_still_ready(
    shop: Db, outcomes: list[Outcome], read_on_after: int
) -> None:
    assert settle_all(shop, *outcomes).read_on_after == read_on_after


@pytest.mark.parametrize(
    ("outcome", "is_up", "is_down"),
    [
        (Delivered(), True, False),
        (Refused("no"), True, False),
        (Rejected("never"), True, False),
        (Obsolete(), False, False),
        (Failed("oops"), False, False),
        (NotSent(), False, False),
        (Unreachable("down"), False, True),
    ],
)
def test_an_outcome_tells_whether_its_destination_is_up(shop: Db, outcome: Outcome, is_up: bool, is_down: bool) -> None:
    settlement = settle_all(shop, outcome)

    assert (settlement.is_up, settlement.is_down) == (is_up, is_down)


def test_an_error_is_kept_short_and_storable(shop: Db) -> None:
    settle_all(shop, Failed("a\0b" + "x" * 5_000))

    assert row(shop, 1).last_error == "ab" + "x" * (ERROR_LENGTH - 2)


def test_half_a_character_in_an_error_makes_no_fault_of_the_row_of_it(shop: Db) -> None:
    settlement = settle_all(shop, Delivered(), Unreachable("half of \ud83d"))

    assert settlement.is_down
    stored = row(shop, 2)
    assert (stored.attempts, stored.last_error) == (0, "half of ?")


def test_the_last_error_is_kept_while_a_row_waits_behind_another(shop: Db) -> None:
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
def test_what_has_ended_meanwhile_stays_as_it_is(shop: Db, ended: str, outcome: Outcome) -> None:
    """An operator may have discarded it while it was under way."""
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
