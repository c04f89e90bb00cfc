"""The circuit breaker of a destination: an outage costs one probe now and then, and no attempts."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from domain.outbox.delivery.outcomes import LONGEST_RETRY_AFTER, Outcome, error_of, excerpt, retry_after_of
from domain.outbox.table import destinations
from domain.runtime.backoff import delay

#: How long the breaker stays open when it opens; each failed probe doubles that.
FIRST_OPEN = timedelta(seconds=1)

#: A breaker never stays open for longer, so a destination that is back is noticed within this time, after an outage of
#: any length. Only a `Retry-After` may ask for more.
LONGEST_OPEN = timedelta(seconds=15)


def lock(session: Session, destination: str) -> int:
    """Lock the breaker of a destination until the transaction ends. Return how often in a row it was found down."""
    statement = select(destinations.c.failures).where(destinations.c.name == destination).with_for_update()
    failures: int = session.execute(statement).scalar_one()
    return failures


def trip(session: Session, destination: str, failures: int, seen: Sequence[Outcome], *, probing: bool) -> timedelta:
    """Open the breaker, or after a failed probe open it again for longer. Return for how long.

    `failures` is what `lock` returned. Lanes that meet the same outage at the same time count as one failure.
    """
    failures = failures + 1 if probing else max(failures, 1)
    # Half of full jitter: probes spread out, and none comes at once.
    backoff = delay(failures, first=FIRST_OPEN, cap=LONGEST_OPEN, jitter=random.uniform(0.5, 1))
    open_for = max(backoff, min(max(map(retry_after_of, seen)), LONGEST_RETRY_AFTER))
    # A later time that another lane was asked for is kept: only a probe knows better.
    until = func.now() + open_for if probing else func.greatest(destinations.c.open_until, func.now() + open_for)
    opened = update(destinations).where(destinations.c.name == destination)
    since, reason = func.coalesce(destinations.c.opened_at, func.now()), excerpt(error_of(seen[0]))
    session.execute(opened.values(failures=failures, open_until=until, opened_at=since, reason=reason))
    return open_for


def leave_half_open(session: Session, destination: str) -> None:
    """Let another worker probe at once: this probe has shown nothing."""
    half_open = update(destinations).where(destinations.c.name == destination)
    session.execute(half_open.values(open_until=func.now()))


def pause(session: Session, destination: str, *, reason: str) -> None:
    """Send nothing more to a destination until it is resumed. Its rows wait."""
    paused = update(destinations).where(destinations.c.name == destination)
    session.execute(paused.values(paused=True, reason=excerpt(reason)))


def close(session: Session, destination: str, *, opened_before: datetime | None = None) -> None:
    """Close the breaker of a destination that has recovered. If it was paused meanwhile, it stays paused.

    With `opened_before` it is closed only if it was opened before that time: the destination has recovered since then.
    """
    closed = update(destinations).where(destinations.c.name == destination)
    if opened_before is not None:
        closed = closed.where(destinations.c.failures > 0, destinations.c.opened_at <= opened_before)
    reason = case((destinations.c.paused, destinations.c.reason))
    session.execute(closed.values(failures=0, open_until=None, opened_at=None, reason=reason, recovered_at=func.now()))
