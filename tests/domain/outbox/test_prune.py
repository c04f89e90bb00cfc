"""Pruning: rows that were delivered or discarded long ago are deleted, and no others."""

import threading
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from domain import outbox
from domain.outbox.prune import PRUNE_BATCH
from tests.support.builders import Db
from tests.support.outbox import rows, states
from worker import maintenance

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


def some_rows(db: Db, state: str, *, days: float, since: float | None = None, count: int = 1) -> None:
    """Insert rows that were recorded that many days ago, and reached their state then, or `since` days ago."""
    values = {"state": state, "age": days, "since": days if since is None else since, "count": count}
    with db.begin() as session:
        session.execute(text(INSERT), values)


def pruned(db: Db, after: datetime = outbox.BEGINNING) -> tuple[int, datetime | None]:
    with db.begin() as session:
        return outbox.prune(session, older_than=WEEK, after=after)


def test_an_empty_outbox_has_nothing_to_prune(shop: Db) -> None:
    assert pruned(shop) == (0, None)


def test_rows_that_were_delivered_longer_ago_are_deleted(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=3)
    some_rows(shop, "processed", days=6, count=2)

    assert pruned(shop) == (3, None)
    assert [one.id for one in rows(shop)] == [4, 5]


def test_a_row_that_was_recorded_long_ago_and_delivered_lately_stays(shop: Db) -> None:
    some_rows(shop, "processed", days=30, since=1)

    assert pruned(shop) == (0, None)


@pytest.mark.parametrize("state", ["ready", "waiting", "dead"])
def test_a_row_that_was_not_delivered_stays_for_ever(shop: Db, state: str) -> None:
    some_rows(shop, state, days=1_000)

    assert pruned(shop) == (0, None)
    assert len(rows(shop)) == 1


def test_the_oldest_rows_are_deleted_first_and_the_next_batch_begins_where_they_ended(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=PRUNE_BATCH - 1)
    some_rows(shop, "processed", days=9, count=PRUNE_BATCH)
    (oldest,) = {one.processed_at for one in rows(shop)[PRUNE_BATCH:]}

    first = pruned(shop)
    remaining = len(rows(shop))
    second = pruned(shop, after=oldest)

    assert first == (PRUNE_BATCH, oldest)
    assert remaining == PRUNE_BATCH - 1
    assert second == (PRUNE_BATCH - 1, None)


def test_a_batch_does_not_read_rows_of_before_the_moment_at_which_it_begins(shop: Db) -> None:
    some_rows(shop, "processed", days=9)
    some_rows(shop, "processed", days=8)
    _, newer = rows(shop)

    assert pruned(shop, after=newer.processed_at) == (1, None)
    assert [one.id for one in rows(shop)] == [1]


def test_a_row_that_is_being_replayed_stays_and_is_not_waited_for(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=3)

    with shop.begin() as replay:
        replay.execute(text("UPDATE outbox SET processed_at = NULL WHERE id = 2"))
        meanwhile = pruned(shop)

    assert meanwhile == (2, None)
    assert states(shop) == ["ready"]


def test_two_transactions_that_prune_at_the_same_time_share_the_work(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=PRUNE_BATCH + 7)

    with shop.begin() as one:
        first, _ = outbox.prune(one, older_than=WEEK)
        second, _ = pruned(shop)

    assert (first, second) == (PRUNE_BATCH, 7)
    assert rows(shop) == []


def test_pruning_again_finds_nothing_more(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=2)

    assert [pruned(shop), pruned(shop)] == [(2, None), (0, None)]


def test_maintenance_prunes_rows_and_keys_batch_by_batch(shop: Db) -> None:
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

    maintenance.prune(shop, threading.Event(), outbox_retention=WEEK)

    assert len(rows(shop)) == 1
    with shop.begin() as session:
        assert session.execute(text("SELECT count(*) FROM idempotency_requests")).scalar_one() == 0


def test_maintenance_that_was_stopped_prunes_nothing(shop: Db) -> None:
    some_rows(shop, "processed", days=8)
    stopping = threading.Event()
    stopping.set()

    maintenance.prune(shop, stopping, outbox_retention=WEEK)

    assert len(rows(shop)) == 1


def test_maintenance_whose_time_is_over_leaves_the_other_rows_to_the_next_run(shop: Db) -> None:
    some_rows(shop, "processed", days=8)

    maintenance.prune(shop, threading.Event(), outbox_retention=WEEK, seconds=0)
    remaining = len(rows(shop))
    maintenance.prune(shop, threading.Event(), outbox_retention=WEEK)

    assert remaining == 1
    assert rows(shop) == []


def test_the_rows_of_a_batch_whose_connection_broke_are_deleted_by_the_next(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=3)

    with shop() as session:
        outbox.prune(session, older_than=WEEK)
        session.connection().invalidate()
    remaining = len(rows(shop))

    assert remaining == 3
    assert pruned(shop) == (3, None)


def test_dead_letters_that_were_discarded_long_ago_are_deleted_and_others_stay(shop: Db) -> None:
    some_rows(shop, "dead", days=30, count=PRUNE_BATCH + 2)
    with shop.begin() as session:
        session.execute(text("UPDATE outbox SET discarded_at = now() - interval '8 days' WHERE id > 1"))
        session.execute(text("UPDATE outbox SET discarded_at = now() - interval '6 days' WHERE id = 2"))

    maintenance.prune(shop, threading.Event(), outbox_retention=WEEK)

    assert [one.id for one in rows(shop)] == [1, 2]
