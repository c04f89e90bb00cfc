"""Pruning keys: a key is kept for a day, and old keys are deleted in limited batches."""

from datetime import timedelta

from sqlalchemy import select, update

from domain import idempotency
from domain.idempotency import KEPT_FOR, PRUNE_BATCH, Key, requests
from tests.domain.idempotency.conftest import KEY, key_count, stored
from tests.support.builders import Db


def aged(db: Db, by: timedelta) -> None:
    """Make all keys older."""
    with db.begin() as session:
        session.execute(update(requests).values(created_at=requests.c.created_at - by))


def pruned(db: Db) -> int:
    with db.begin() as session:
        return idempotency.prune(session)


def test_a_key_is_kept_for_a_day_and_may_be_used_anew_afterwards(db: Db) -> None:
    stored(db, KEY)
    aged(db, KEPT_FOR - timedelta(minutes=1))

    assert (pruned(db), key_count(db)) == (0, 1)
    aged(db, timedelta(minutes=2))
    assert (pruned(db), key_count(db)) == (1, 0)
    with db.begin() as session:
        anew = idempotency.once(session, KEY, "p", lambda: "anew", lambda answer: answer)
    assert anew == idempotency.Answered("anew")


def test_keys_are_pruned_in_limited_batches_and_locked_ones_are_skipped(db: Db) -> None:
    stored(db, *(Key("client", "op", str(number)) for number in range(PRUNE_BATCH + 5)))
    aged(db, 2 * KEPT_FOR)
    locked = select(requests).where(requests.c.idempotency_key.in_(["1", "2"])).with_for_update()

    with db.begin() as holder:
        holder.execute(locked)
        assert [pruned(db), pruned(db), pruned(db)] == [PRUNE_BATCH, 3, 0]
    assert pruned(db) == 2
