"""Pruning: what was delivered long ago goes, and nothing else does."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import text

from domain import outbox
from domain.outbox.prune import PRUNE_BATCH
from tests.builders import Db
from tests.promises import rows, with_shop
from worker import sweep

WEEK = timedelta(days=7)

INSERT = """
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, created_at,
                        processed_at, dead_at, available_at)
    SELECT gen_random_uuid(), 'shop', 0, gen_random_uuid(), 'booking.created', '{}', now() - :age * interval '1 day',
           CASE :state WHEN 'processed' THEN now() - :since * interval '1 day' END,
           CASE :state WHEN 'dead' THEN now() - :since * interval '1 day' END,
           CASE :state WHEN 'waiting' THEN now() END
    FROM generate_series(1, :count)
"""


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def some_rows(db: Db, state: str, *, days: float, since: float | None = None, count: int = 1) -> None:
    """Rows that were recorded so many days ago, and came to their state then or as long ago as `since` says."""
    values = {"state": state, "age": days, "since": days if since is None else since, "count": count}
    with db.begin() as session:
        session.execute(text(INSERT), values)


def pruned(db: Db, after: int = 0) -> tuple[int, int | None]:
    with db.begin() as session:
        return outbox.prune(session, older_than=WEEK, after=after)


def test_an_empty_outbox_has_nothing_to_prune(shop: Db) -> None:
    assert pruned(shop) == (0, None)


def test_what_was_delivered_longer_ago_goes(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=3)
    some_rows(shop, "processed", days=6, count=2)

    assert pruned(shop) == (3, None)
    assert [one.id for one in rows(shop)] == [4, 5]


def test_what_was_recorded_long_ago_and_delivered_lately_stays(shop: Db) -> None:
    some_rows(shop, "processed", days=30, since=1)

    assert pruned(shop) == (0, None)


@pytest.mark.parametrize("state", ["ready", "waiting", "dead"])
def test_what_was_not_delivered_stays_for_ever(shop: Db, state: str) -> None:
    some_rows(shop, state, days=1_000)

    assert pruned(shop) == (0, None)
    assert len(rows(shop)) == 1


def test_it_goes_on_where_it_stopped_and_ends_at_what_is_young(shop: Db) -> None:
    some_rows(shop, "dead", days=9, count=PRUNE_BATCH - 1)
    some_rows(shop, "processed", days=8, count=PRUNE_BATCH)
    some_rows(shop, "processed", days=1, count=PRUNE_BATCH)

    first, second = pruned(shop), pruned(shop, after=PRUNE_BATCH)

    assert first == (1, PRUNE_BATCH)
    assert second == (PRUNE_BATCH - 1, None)
    assert len(rows(shop)) == 2 * PRUNE_BATCH - 1


def test_pruning_again_finds_nothing_more(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=2)

    assert [pruned(shop), pruned(shop)] == [(2, None), (0, None)]


def test_a_sweep_prunes_rows_and_keys_batch_by_batch(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=2 * PRUNE_BATCH + 7)
    some_rows(shop, "ready", days=8)
    with shop.begin() as session:
        session.execute(
            text(
                "INSERT INTO idempotency_requests"
                " (client_id, operation, idempotency_key, payload_hash, answer, created_at)"
                " SELECT 'c', 'o', n::text, 'h', 'a', now() - interval '25 hours' FROM generate_series(1, 10) AS n"
            )
        )

    sweep.prune(shop, threading.Event(), outbox_retention=WEEK)

    assert len(rows(shop)) == 1
    with shop.begin() as session:
        assert session.execute(text("SELECT count(*) FROM idempotency_requests")).scalar_one() == 0


def test_a_sweep_that_was_stopped_prunes_nothing(shop: Db) -> None:
    some_rows(shop, "processed", days=8)
    stopping = threading.Event()
    stopping.set()

    sweep.prune(shop, stopping, outbox_retention=WEEK)

    assert len(rows(shop)) == 1
