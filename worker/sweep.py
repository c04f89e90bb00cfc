"""Tidying: lapsed holds, and rows and keys that have been kept long enough."""

import threading
from collections.abc import Callable
from datetime import timedelta

import structlog
from sqlalchemy.orm import Session, sessionmaker

from domain import idempotency, outbox, reservations

#: Holds expired in one transaction. Their items stay locked for about as long as a large
#: set of new reservations would lock them.
EXPIRE_BATCH = 500

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


def prune(db: sessionmaker[Session], stopping: threading.Event, *, outbox_retention: timedelta) -> None:
    """Delete what was delivered long ago, and the keys that clients may not repeat any more."""
    rows = _prune_outbox(db, stopping, outbox_retention)
    keys = _prune_keys(db, stopping)
    if rows or keys:
        log.info("pruned", outbox_rows=rows, idempotency_keys=keys)


def _prune_outbox(db: sessionmaker[Session], stopping: threading.Event, retention: timedelta) -> int:
    pruned = 0
    after: int | None = 0
    while after is not None and not stopping.is_set():
        with db.begin() as session:
            count, after = outbox.prune(session, older_than=retention, after=after)
        pruned += count
    return pruned


def _prune_keys(db: sessionmaker[Session], stopping: threading.Event) -> int:
    pruned = 0
    while not stopping.is_set():
        with db.begin() as session:
            count = idempotency.prune(session)
        pruned += count
        if count == 0:
            break
    return pruned
