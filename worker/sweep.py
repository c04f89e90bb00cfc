"""Tidying: lapsed holds, and rows and keys that have been kept long enough."""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session, sessionmaker

from domain import idempotency, outbox, reservations

#: Holds expired in one transaction. Their items stay locked for about as long as a large
#: set of new reservations would lock them.
EXPIRE_BATCH = 500

#: Rows and keys get so long each. Both end before the next ring, so that pruning a backlog
#: never takes up more than one thread.
PRUNE_SECONDS = 120.0

log = structlog.get_logger()


def expire(
    db: sessionmaker[Session],
    stopping: threading.Event,
    *,
    limit: float = float("inf"),
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Expire overdue holds, batch by batch, until there are none or `limit` are done. Return how many."""
    expired = 0
    while expired < limit and not stopping.is_set():
        size = int(min(EXPIRE_BATCH, limit - expired))
        with db.begin() as session:
            found = reservations.expire(session, size)
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
    """Delete what was delivered long ago, and the keys that clients may not repeat any more.

    Each of the two ends after so many seconds; the next run goes on.
    """
    rows = _prune_outbox(db, stopping, outbox_retention, ends=time.monotonic() + seconds)
    keys = _prune_keys(db, stopping, ends=time.monotonic() + seconds)
    if rows or keys:
        log.info("pruned", outbox_rows=rows, idempotency_keys=keys)


def _prune_outbox(db: sessionmaker[Session], stopping: threading.Event, retention: timedelta, ends: float) -> int:
    pruned = 0
    after: datetime | None = outbox.BEGINNING
    while after is not None and time.monotonic() < ends and not stopping.is_set():
        with db.begin() as session:
            count, after = outbox.prune(session, older_than=retention, after=after)
        pruned += count
    return pruned


def _prune_keys(db: sessionmaker[Session], stopping: threading.Event, ends: float) -> int:
    pruned = 0
    while time.monotonic() < ends and not stopping.is_set():
        with db.begin() as session:
            count = idempotency.prune(session)
        pruned += count
        if count == 0:
            break
    return pruned
