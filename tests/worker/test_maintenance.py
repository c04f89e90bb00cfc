"""Maintenance: what was kept long enough is deleted in turns, so that no kind waits for another one."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from domain.access.audit import AuditEntry
from domain.idempotency import requests
from domain.outbox import Routes
from domain.outbox.operations import routes_in_force
from domain.outbox.table import outbox
from domain.runtime.pruning import PRUNE_BATCH
from tests.support.builders import ROUTES, Db, a_request, an_item, available, reserve
from tests.support.waiting import wait_until
from worker import maintenance
from worker.maintenance import Retention

WEEK = timedelta(days=7)
RETENTION = Retention(outbox=WEEK, feed=WEEK)

#: More old rows than one batch deletes.
OLD_ROWS = 4 * PRUNE_BATCH

OLD_KEYS = """
    INSERT INTO idempotency_requests (client_id, operation, idempotency_key, payload_hash, answer, created_at)
    SELECT 'c', 'o', n::text, 'h', 'a', now() - interval '25 hours' FROM generate_series(1, :count) AS n
"""

DELIVERED_LONG_AGO = """
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, processed_at)
    SELECT gen_random_uuid(), 'shop', 0, gen_random_uuid(), 'booking.created', '{}', now() - interval '8 days'
    FROM generate_series(1, :count)
"""

DISCARDED_LONG_AGO = """
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, dead_at, discarded_at)
    SELECT gen_random_uuid(), 'shop', 0, gen_random_uuid(), 'booking.created', '{}', now(), now() - interval '8 days'
    FROM generate_series(1, :count)
"""

APPENDED_LONG_AGO = """
    INSERT INTO feed_events (position, event_id, type, aggregate_id, payload, created_at, appended_at)
    SELECT n, gen_random_uuid(), 'booking.created', gen_random_uuid(), '{}', now(), now() - interval '8 days'
    FROM generate_series(1, :count) AS n
"""

PENDING = """
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, created_at)
    SELECT gen_random_uuid(), 'shop', 0, gen_random_uuid(), 'booking.created', '{}', now() - interval '8 days'
    FROM generate_series(1, :count)
"""


def insert(db: Db, statement: str, count: int) -> None:
    with db.begin() as session:
        session.execute(text(statement), {"count": count})


def remaining(db: Db) -> tuple[int, int]:
    """Return how many keys and how many rows there are."""
    with db.begin() as session:
        counts = [session.execute(select(func.count()).select_from(table)).scalar_one() for table in (requests, outbox)]
    return counts[0], counts[1]


def pruned(db: Db, stopping: threading.Event | None = None, *, seconds: float = float("inf")) -> maintenance.Pruning:
    return maintenance.prune(db, stopping or threading.Event(), RETENTION, seconds=seconds)


def of_each_kind(keys: int = 0, delivered: int = 0, discarded: int = 0, feed: int = 0) -> Mapping[str, int]:
    return {"idempotency key": keys, "delivered row": delivered, "discarded row": discarded, "feed event": feed}


@pytest.fixture
def keys_that_lapse(db: Db) -> Iterator[None]:
    """As each key is deleted, another one has become old enough."""
    with db.begin() as session:
        session.execute(text(KEYS_LAPSE))
    yield
    with db.begin() as session:
        session.execute(text("DROP FUNCTION another_key_lapses CASCADE"))


KEYS_LAPSE = """
    CREATE FUNCTION another_key_lapses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO idempotency_requests (client_id, operation, idempotency_key, payload_hash, answer, created_at)
        VALUES ('c', 'o', gen_random_uuid()::text, 'h', 'a', now() - interval '25 hours');
        RETURN NULL;
    END $$;
    CREATE TRIGGER another_key_lapses AFTER DELETE ON idempotency_requests
        FOR EACH ROW EXECUTE FUNCTION another_key_lapses();
"""


@pytest.fixture
def keys_that_can_not_be_deleted(db: Db) -> Iterator[None]:
    with db.begin() as session:
        session.execute(text(KEYS_STAY))
    yield
    with db.begin() as session:
        session.execute(text("DROP FUNCTION this_key_stays CASCADE"))


KEYS_STAY = """
    CREATE FUNCTION this_key_stays() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'this key stays';
    END $$;
    CREATE TRIGGER this_key_stays BEFORE DELETE ON idempotency_requests
        FOR EACH ROW EXECUTE FUNCTION this_key_stays();
"""


@pytest.mark.parametrize("keys", [3, PRUNE_BATCH])
def test_old_rows_are_pruned_while_keys_keep_lapsing(db: Db, keys_that_lapse: None, keys: int) -> None:
    insert(db, OLD_KEYS, keys)
    insert(db, DELIVERED_LONG_AGO, OLD_ROWS)
    insert(db, DISCARDED_LONG_AGO, 3)
    stopping = threading.Event()

    with ThreadPoolExecutor(1) as elsewhere:
        run = elsewhere.submit(pruned, db, stopping)
        try:
            wait_until("all old rows are pruned", lambda: remaining(db)[1] == 0)
        finally:
            stopping.set()
        run.result()


def test_every_kind_is_pruned_to_its_end_and_nothing_else(db: Db) -> None:
    insert(db, OLD_KEYS, 10)
    insert(db, DELIVERED_LONG_AGO, 2 * PRUNE_BATCH + 7)
    insert(db, DISCARDED_LONG_AGO, PRUNE_BATCH + 2)
    insert(db, APPENDED_LONG_AGO, 4)
    insert(db, PENDING, 1)

    run = pruned(db)

    # The newest event of the feed stays, so that positions do not begin anew.
    assert run == maintenance.Pruning(of_each_kind(10, 2 * PRUNE_BATCH + 7, PRUNE_BATCH + 2, 3), complete=True)
    assert remaining(db) == (0, 1)


def test_kinds_take_turns_one_batch_each(db: Db) -> None:
    insert(db, OLD_KEYS, PRUNE_BATCH + 1)
    insert(db, DELIVERED_LONG_AGO, PRUNE_BATCH + 2)
    insert(db, DISCARDED_LONG_AGO, 3)
    seen: list[Mapping[str, int]] = []

    maintenance.prune(db, threading.Event(), RETENTION, progress=lambda deleted: seen.append(dict(deleted)))

    assert seen == [
        of_each_kind(PRUNE_BATCH),
        of_each_kind(PRUNE_BATCH, PRUNE_BATCH),
        of_each_kind(PRUNE_BATCH, PRUNE_BATCH, 3),
        of_each_kind(PRUNE_BATCH + 1, PRUNE_BATCH, 3),
        of_each_kind(PRUNE_BATCH + 1, PRUNE_BATCH + 2, 3),
    ]


def test_a_kind_that_fails_keeps_no_other_from_being_pruned(db: Db, keys_that_can_not_be_deleted: None) -> None:
    insert(db, OLD_KEYS, 1)
    insert(db, DELIVERED_LONG_AGO, PRUNE_BATCH + 1)

    with pytest.raises(DBAPIError, match="this key stays"):
        pruned(db)

    assert remaining(db) == (1, 0)


def test_a_run_that_is_stopped_prunes_nothing(db: Db) -> None:
    insert(db, DELIVERED_LONG_AGO, 1)
    stopping = threading.Event()
    stopping.set()

    assert pruned(db, stopping) == maintenance.Pruning(of_each_kind(), complete=False)
    assert remaining(db) == (0, 1)


def test_a_run_whose_time_is_over_leaves_the_other_rows_to_the_next(db: Db) -> None:
    insert(db, DELIVERED_LONG_AGO, 1)

    first = pruned(db, seconds=0)
    left = remaining(db)
    second = pruned(db)

    assert (first.complete, left) == (False, (0, 1))
    assert (second.complete, remaining(db)) == (True, (0, 0))


def test_expiring_ends_when_its_time_is_over_and_the_next_run_continues(db: Db) -> None:
    item = an_item(db, quantity=maintenance.EXPIRE_BATCH)
    reserve(db, *(a_request(item) for _ in range(3)))
    with db.begin() as session:
        session.execute(text("UPDATE reservations SET expires_at = created_at"))

    assert maintenance.expire(db, threading.Event(), ROUTES, seconds=0) == 0
    assert maintenance.expire(db, threading.Event(), ROUTES) == 3
    assert available(db, item) == maintenance.EXPIRE_BATCH


def test_a_worker_says_that_other_routes_are_in_force_since_it_started(db: Db) -> None:
    with capture_logs() as before:
        maintenance.compare_routes(db, ROUTES)
    with db.begin() as session:
        routes_in_force.use(session, Routes([]), AuditEntry(who="ann@ops", why="nobody wants anything"))
    with capture_logs() as after:
        maintenance.compare_routes(db, ROUTES)

    assert (before, [one["event"] for one in after]) == ([], ["routes.changed"])
