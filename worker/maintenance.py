"""Maintenance: expiring overdue holds, sealing the audit, and deleting what has been kept long enough."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain import feed, idempotency, outbox, reservations
from domain.access import audit
from domain.outbox import Routes
from domain.outbox.operations import routes_in_force
from domain.runtime.pruning import BEGINNING, Prune
from domain.runtime.settings import Settings

#: Holds that are expired in one transaction. Their items stay locked for about as long as a large
#: set of new reservations would lock them.
EXPIRE_BATCH = 500

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
    seconds: float = float("inf"),
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Expire overdue holds, batch by batch, until there are none, `limit` are done or the time is over.

    Return how many. The next run continues.
    """
    deadline = time.monotonic() + seconds
    expired = 0
    while expired < limit and not stopping.is_set() and time.monotonic() < deadline:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long rows are kept that are not needed any more."""

    outbox: timedelta
    feed: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            outbox=timedelta(days=settings.outbox_retention_days), feed=timedelta(days=settings.feed_retention_days)
        )


def kinds(retention: Retention) -> Mapping[str, Prune]:
    """Return what is pruned, by the name of one row of each kind."""
    return {
        "idempotency key": idempotency.prune,
        "delivered row": partial(outbox.prune_delivered, older_than=retention.outbox),
        "discarded row": partial(outbox.prune_discarded, older_than=retention.outbox),
        "feed event": partial(feed.prune, older_than=retention.feed),
    }


@dataclass(frozen=True, slots=True)
class Pruning:
    """How many rows of each kind a run has deleted, and whether none that is old enough remained."""

    deleted: Mapping[str, int]
    complete: bool


def prune(
    db: sessionmaker[Session],
    stopping: threading.Event,
    retention: Retention,
    *,
    seconds: float = float("inf"),
    progress: Callable[[Mapping[str, int]], None] = lambda _: None,
) -> Pruning:
    """Delete what has been kept long enough, until nothing is left or the time is over. The next run continues.

    Kinds take turns, one batch each, so that no kind waits for another to end. A kind that fails is left to the next
    run, and its error is raised when the others are done.
    """
    deadline = time.monotonic() + seconds
    turns = _Turns(kinds(retention))
    while turns.waiting and not stopping.is_set() and (begun := time.monotonic()) < deadline:
        if turns.take(db):
            progress(turns.deleted)
            stopping.wait(REST * (time.monotonic() - begun))
    if any(turns.deleted.values()):
        log.info("maintenance.pruned", **{plural(name): count for name, count in turns.deleted.items()})
    for error in turns.errors:
        raise error
    return Pruning(turns.deleted, complete=not turns.waiting)


def plural(name: str) -> str:
    """Return the name of a kind as a field of a log or of JSON."""
    return f"{name}s".replace(" ", "_")


class _Turns:
    """The kinds that still have rows to delete, in the order of their turns."""

    def __init__(self, kinds: Mapping[str, Prune]) -> None:
        self.waiting = deque((name, batch, BEGINNING) for name, batch in kinds.items())
        self.deleted = dict.fromkeys(kinds, 0)
        self.errors: list[SQLAlchemyError] = []

    def take(self, db: sessionmaker[Session]) -> int:
        """Delete one batch of the kind whose turn it is. Return how many rows it has deleted."""
        name, prune_batch, after = self.waiting.popleft()
        try:
            with db.begin() as session:
                batch = prune_batch(session, after)
        except SQLAlchemyError as error:
            self.errors.append(error)
            return 0
        self.deleted[name] += batch.deleted
        if batch.next_after is not None:
            self.waiting.append((name, prune_batch, batch.next_after))
        return batch.deleted


def seal_audit(db: sessionmaker[Session], stopping: threading.Event, *, seconds: float = float("inf")) -> int:
    """Seal what was committed to the audit, seal by seal, until nothing waits or the time is over. Return how much.

    The next run continues. It does nothing while another process seals.
    """
    deadline = time.monotonic() + seconds
    sealed = 0
    while not stopping.is_set() and time.monotonic() < deadline:
        with db.begin() as session:
            found = audit.seal(session)
        sealed += found
        if not found:
            break
    if sealed:
        log.debug("audit.sealed", count=sealed)
    return sealed


def compare_routes(db: sessionmaker[Session], routes: Routes) -> None:
    """Log if other routes than those of this process are in force since it started."""
    with db.begin() as session:
        if routes_in_force.differ(session, routes):
            log.warning(
                "routes.changed",
                advice="this process still records by the former routes: restart it with those that are in force",
            )


def reset_low_watermarks(db: sessionmaker[Session]) -> None:
    """Repair what keeps rows from being delivered: wrong low watermarks, and waits that are longer than any can be."""
    with db.begin() as session:
        wrong = outbox.reset_wrong_low_watermarks(session)
    if wrong:
        log.warning("outbox.low_watermarks_reset", lanes=wrong)
    with db.begin() as session:
        due = outbox.make_impossible_waits_due(session)
    if due:
        log.warning("outbox.impossible_waits_ended", rows=due)
