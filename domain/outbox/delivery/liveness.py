"""Liveness: a process that delivers holds an advisory lock, and without it the lanes of the process are free.

A process locks a key of its own and writes it into each lane that it claims, and beside each of its calls that have
outlasted their batch. However the process ends, PostgreSQL ends its session and with it the lock, so another process
knows that the lanes with this key belong to nobody. Epoch and holder remain the fence: if the lanes of a process that
still lives are freed, some events are sent twice, none is lost, and that process can settle nothing.
"""

from collections.abc import Collection, Sequence
from secrets import randbits
from typing import NamedTuple

from sqlalchemy import ARRAY, Integer, any_, bindparam, cast, delete, func, select, text, union, update
from sqlalchemy.orm import Session

from domain.outbox.table import LONG_AGO, calls, lanes, outbox, waiting

#: The first number of these advisory locks; the second one is the key. Spells HOLD, so that nobody else has it by
#: chance.
LOCK_CLASS = 0x484F4C44

#: A key fits into the second number of an advisory lock, and is not negative.
KEY_BITS = 31


class LivenessKeys(NamedTuple):
    """The keys that are locked, and those that lanes still carry though nobody has locked them any more."""

    live: frozenset[int]
    dead: frozenset[int]


def lock_liveness_key(session: Session) -> int:
    """Lock a new key for as long as the connection of the session lasts. Return it."""
    while True:
        key = randbits(KEY_BITS)
        if session.execute(select(func.pg_try_advisory_lock(LOCK_CLASS, key))).scalar_one():
            return key


def find_liveness_keys(session: Session) -> LivenessKeys:
    """Return which processes live and which are dead. Call it outside any transaction.

    The lanes are read before the locks. A process locks its key before it claims a lane, and never locks it again: a
    key that was in a lane and is locked by nobody afterwards is dead for ever.
    """
    carried = set(session.execute(_CARRIED).scalars())
    live = frozenset(session.execute(_LIVE, {"class": LOCK_CLASS}).scalars())
    return LivenessKeys(live=live, dead=frozenset(carried - live))


_CARRIED = union(*(select(table.c.liveness_key).where(table.c.liveness_key.is_not(None)) for table in (lanes, calls)))
# Advisory locks belong to a database. Those with two numbers have a 2 in `objsubid`. Whoever waits, or has waited, for
# the end of a process locks its key with others; only the process itself has it alone.
_LIVE = text("""
    SELECT objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND classid = :class AND objsubid = 2 AND granted AND mode = 'ExclusiveLock'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


def neighbour_of(key: int | None, live: Collection[int]) -> int | None:
    """Return the live key that the process with this key watches: the next one, or after the last one the first.

    So each process is watched by another one, and none by all.
    """
    others = sorted(other for other in live if other != key)
    return next((other for other in others if key is None or other > key), others[0] if others else None)


def wait_for_end(session: Session, key: int) -> None:
    """Wait until no process has locked a key, or for the `lock_timeout` of the connection.

    PostgreSQL would log an error for a time-out that the block does not catch.
    """
    session.execute(
        text(f"""
            DO $$ BEGIN PERFORM pg_advisory_xact_lock_shared({LOCK_CLASS:d}, {key:d});
            EXCEPTION WHEN lock_not_available THEN NULL; END $$
        """)
    )


def free_lanes(session: Session, dead: Collection[int]) -> Sequence[str]:
    """Free the lanes that carry one of these keys. Return the holders that had not released them.

    The lanes have no time of release, so they are claimed before all that were released: their rows have waited since
    their process died. It waits for no lock: a lane that is locked is freed by a later call.
    """
    freed = session.execute(_FREE, {"dead": list(dead)}).scalars()
    return [holder for holder in freed if holder is not None]


_carries_dead_key = lanes.c.liveness_key == any_(cast(bindparam("dead"), ARRAY(Integer)))
_abandoned = (
    select(lanes.c.destination, lanes.c.lane, lanes.c.holder)
    .where(_carries_dead_key)
    .with_for_update(skip_locked=True)
    .cte("abandoned")
)
_FREE = (
    update(lanes)
    .where(lanes.c.destination == _abandoned.c.destination, lanes.c.lane == _abandoned.c.lane)
    .values(holder=None, liveness_key=None, leased_until=None)
    .returning(_abandoned.c.holder)
)


def free_calls(session: Session, dead: Collection[int]) -> int:
    """Have the rows sent again at once whose calls were in flight in processes that are dead. Return how many.

    The later rows of their aggregates, which have waited with them, are due as well and counted.
    """
    rows = session.execute(_FREE_ROWS, {"dead": list(dead)}).all()
    session.execute(delete(calls).where(calls.c.liveness_key.in_(dead)))
    return len(rows)


_head = outbox.alias("head")
_FREE_ROWS = (
    update(outbox)
    .where(calls.c.liveness_key == any_(cast(bindparam("dead"), ARRAY(Integer))), _head.c.id == calls.c.id)
    .where(outbox.c.destination == _head.c.destination, outbox.c.aggregate_id == _head.c.aggregate_id)
    .where(waiting, outbox.c.id >= _head.c.id, outbox.c.available_at == _head.c.available_at)
    .values(available_at=LONG_AGO)
    .returning(outbox.c.id)
)


def adopt(session: Session, *, lost: int, key: int) -> None:
    """Replace the lost key of a process by its new one, in its lanes and beside its calls."""
    for table in (lanes, calls):
        session.execute(update(table).where(table.c.liveness_key == lost).values(liveness_key=key))
