"""Pruning keys: a key is kept for a day, and old keys are deleted in limited batches."""

from datetime import timedelta

from sqlalchemy import func, select, text, update

from domain import idempotency
from domain.idempotency import KEPT_FOR, Key, requests
from domain.runtime.pruning import PRUNE_BATCH
from tests.domain.idempotency.conftest import KEY, key_count, stored
from tests.domain.outbox.test_plans import planned
from tests.support.builders import Db


def aged(db: Db, by: timedelta) -> None:
    """Make all keys older."""
    with db.begin() as session:
        session.execute(update(requests).values(created_at=requests.c.created_at - by))


def pruned(db: Db) -> int:
    with db.begin() as session:
        return idempotency.prune(session).deleted


def test_a_key_is_kept_for_a_day_and_may_be_used_anew_afterwards(db: Db) -> None:
    stored(db, KEY)
    aged(db, KEPT_FOR - timedelta(minutes=1))

    assert (pruned(db), key_count(db)) == (0, 1)
    aged(db, timedelta(minutes=2))
    assert (pruned(db), key_count(db)) == (1, 0)
    with db.begin() as session:
        anew = idempotency.once(session, KEY, "p", lambda _: "anew", lambda answer: answer)
    assert anew == idempotency.Answered("anew")


def test_keys_are_pruned_in_limited_batches_and_locked_ones_are_skipped(db: Db) -> None:
    stored(db, *(Key("client", "op", str(number)) for number in range(PRUNE_BATCH + 5)))
    aged(db, 2 * KEPT_FOR)
    locked = select(requests).where(requests.c.idempotency_key.in_(["1", "2"])).with_for_update()

    with db.begin() as holder:
        holder.execute(locked)
        assert [pruned(db), pruned(db), pruned(db)] == [PRUNE_BATCH, 3, 0]
    assert pruned(db) == 2


def test_the_oldest_keys_are_pruned_first_and_the_next_batch_begins_where_they_ended(db: Db) -> None:
    stored(db, *(Key("client", "op", str(number)) for number in range(PRUNE_BATCH)))
    aged(db, timedelta(days=1))
    stored(db, KEY)
    aged(db, 2 * KEPT_FOR)
    with db.begin() as session:
        oldest, newest = session.execute(select(func.min(requests.c.created_at), func.max(requests.c.created_at))).one()

    with db.begin() as session:
        first = idempotency.prune(session)
        remaining = idempotency.lookup(session, [KEY])
        nothing = idempotency.prune(session, newest + timedelta(seconds=1))
        second = idempotency.prune(session, oldest)

    assert first == (PRUNE_BATCH, oldest)
    assert remaining
    assert (nothing, second) == ((0, None), (1, None))


def test_old_keys_are_found_without_reading_the_table(db: Db) -> None:
    with db.begin() as session:
        session.execute(text(MANY_KEYS))
    with db.begin() as session:
        session.execute(text("ANALYZE idempotency_requests"))

    plan = planned(db, idempotency.prune)

    assert plan.indexes == {"ix_idempotency_requests_created_at"}
    assert {kind for kind, table in plan.scans if table and "Scan" in kind} == {"Index Scan", "Tid Scan"}


MANY_KEYS = """
    INSERT INTO idempotency_requests (client_id, operation, idempotency_key, payload_hash, answer)
    SELECT 'client', 'op', n::text, 'h', 'a' FROM generate_series(1, 100000) AS n
"""
