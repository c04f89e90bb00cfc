"""Pruning: rows that were delivered or discarded long ago are deleted, and no others."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import text

from domain import outbox
from domain.runtime.pruning import BEGINNING, PRUNE_BATCH, Pruned
from tests.support.builders import Db
from tests.support.outbox import rows, states

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


def pruned(db: Db, after: datetime = BEGINNING) -> Pruned:
    with db.begin() as session:
        return outbox.prune_delivered(session, after, older_than=WEEK)


def pruned_discarded(db: Db) -> Pruned:
    with db.begin() as session:
        return outbox.prune_discarded(session, older_than=WEEK)


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
    assert pruned_discarded(shop) == (0, None)
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
        first, _ = outbox.prune_delivered(one, older_than=WEEK)
        second, _ = pruned(shop)

    assert (first, second) == (PRUNE_BATCH, 7)
    assert rows(shop) == []


def test_pruning_again_finds_nothing_more(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=2)

    assert [pruned(shop), pruned(shop)] == [(2, None), (0, None)]


def test_the_rows_of_a_batch_whose_connection_broke_are_deleted_by_the_next(shop: Db) -> None:
    some_rows(shop, "processed", days=8, count=3)

    with shop() as session:
        outbox.prune_delivered(session, older_than=WEEK)
        session.connection().invalidate()
    remaining = len(rows(shop))

    assert remaining == 3
    assert pruned(shop) == (3, None)


def test_dead_letters_that_were_discarded_long_ago_are_deleted_and_others_stay(shop: Db) -> None:
    some_rows(shop, "dead", days=30, count=PRUNE_BATCH + 2)
    with shop.begin() as session:
        session.execute(text("UPDATE outbox SET discarded_at = now() - interval '8 days' WHERE id > 1"))
        session.execute(text("UPDATE outbox SET discarded_at = now() - interval '6 days' WHERE id = 2"))

    assert [pruned_discarded(shop).deleted, pruned_discarded(shop).deleted] == [PRUNE_BATCH, 0]
    assert [one.id for one in rows(shop)] == [1, 2]
