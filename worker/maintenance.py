"""Maintenance: expiring overdue holds, and deleting rows and keys that have been kept long enough."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import structlog
from sqlalchemy.orm import Session, sessionmaker

from domain import idempotency, outbox, reservations
from domain.outbox import Routes

#: Holds that are expired in one transaction. Their items stay locked for about as long as a large
#: set of new reservations would lock them.
EXPIRE_BATCH = 500

#: Pruning ends before the next wake-up, so that a backlog never uses more than one thread.
PRUNE_SECONDS = 240.0

#: After each batch, pruning rests this many times as long as the batch took. That hardly slows recording, and
#: is still several times as fast as new rows and keys can come.
REST = 3

log = structlog.get_logger()


def expire(
    db: sessionmaker[Session],
    stopping: threading.Event,
    routes: Routes,
    *,
    limit: float = float("inf"),
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Expire overdue holds, batch by batch, until there are none or `limit` are done. Return how many."""
    expired = 0
    while expired < limit and not stopping.is_set():
        size = int(min(EXPIRE_BATCH, limit - expired))
        with db.begin() as session:
            found = reservations.expire(session, size, routes)
        expired += found
        progress(expired)
        if found < size:
            break
    if expired:
        log.info("reservations.expired", count=expired)
    return expired


def prune(
    db: sessionmaker[Session],
    stopping: threading.Event,
    *,
    outbox_retention: timedelta,
    seconds: float = PRUNE_SECONDS,
) -> None:
    """Delete idempotency keys and outbox rows that have been kept long enough, for that many seconds at the most.

    The next run continues. It begins with low watermarks that keep rows from being delivered.
    """
    ends = time.monotonic() + seconds
    _reset_wrong_low_watermarks(db)
    keys = _prune_keys(db, stopping, ends)
    rows = _prune_outbox(db, stopping, ends, outbox_retention)
    if rows or keys:
        log.info("outbox.pruned", outbox_rows=rows, idempotency_keys=keys)


def _reset_wrong_low_watermarks(db: sessionmaker[Session]) -> None:
    with db.begin() as session:
        wrong = outbox.reset_wrong_low_watermarks(session)
    if wrong:
        log.warning("outbox.low_watermarks_reset", lanes=wrong)


def _prune_keys(db: sessionmaker[Session], stopping: threading.Event, ends: float) -> int:
    pruned = 0
    while not stopping.is_set() and (begun := time.monotonic()) < ends:
        with db.begin() as session:
            count = idempotency.prune(session)
        pruned += count
        if count == 0:
            break
        _rest(stopping, begun)
    return pruned


def _prune_outbox(db: sessionmaker[Session], stopping: threading.Event, ends: float, retention: timedelta) -> int:
    pruned = 0
    after = outbox.BEGINNING
    while not stopping.is_set() and (begun := time.monotonic()) < ends:
        with db.begin() as session:
            count, more_after = outbox.prune(session, older_than=retention, after=after)
        pruned += count
        if more_after is None:
            break
        after = more_after
        _rest(stopping, begun)
    return pruned


def _rest(stopping: threading.Event, begun: float) -> None:
    stopping.wait(REST * (time.monotonic() - begun))
