"""The circuit breaker of a destination: an outage costs one probe now and then, and no attempts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from domain.outbox.delivery.outcomes import Unreachable, excerpt
from domain.outbox.table import destinations
from domain.runtime.backoff import delay

#: How long the breaker stays open when it opens; each failed probe doubles that.
FIRST_OPEN = timedelta(seconds=1)

#: A breaker never stays open for longer, so a destination that is back is noticed within this time, after an outage of
#: any length. Only a `Retry-After` may ask for more.
LONGEST_OPEN = timedelta(seconds=15)

#: A longer `Retry-After` than this is taken for this.
LONGEST_RETRY_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """`failures` counts consecutive failures, probes included; `recovered_at` is the time of the last recovery."""

    failures: int
    recovered_at: datetime | None


def lock(session: Session, destination: str) -> Breaker:
    """Lock the breaker of a destination until the transaction ends."""
    columns = destinations.c.failures, destinations.c.recovered_at
    statement = select(*columns).where(destinations.c.name == destination).with_for_update()
    return Breaker(**session.execute(statement).one()._mapping)


def trip(
    session: Session, destination: str, breaker: Breaker, seen: Sequence[Unreachable], *, probing: bool
) -> timedelta:
    """Open the breaker, or after a failed probe open it again for longer. Return for how long.

    Lanes that meet the same outage at the same time count as one failure.
    """
    failures = breaker.failures + 1 if probing else max(breaker.failures, 1)
    # Half of full jitter: probes spread out, and none comes at once.
    backoff = delay(failures, first=FIRST_OPEN, cap=LONGEST_OPEN, jitter=random.uniform(0.5, 1))
    asked = max((outcome.retry_after for outcome in seen if outcome.retry_after), default=backoff)
    open_for = max(backoff, min(asked, LONGEST_RETRY_AFTER))
    # A later time that another lane was asked for is kept: only a probe knows better.
    until = func.now() + open_for if probing else func.greatest(destinations.c.open_until, func.now() + open_for)
    opened = update(destinations).where(destinations.c.name == destination)
    since = func.coalesce(destinations.c.opened_at, func.now())
    session.execute(opened.values(failures=failures, open_until=until, opened_at=since, reason=excerpt(seen[0].error)))
    return open_for


def leave_half_open(session: Session, destination: str) -> None:
    """Let another worker probe at once: this probe has shown nothing."""
    half_open = update(destinations).where(destinations.c.name == destination)
    session.execute(half_open.values(open_until=func.now()))


def pause(session: Session, destination: str, *, reason: str) -> None:
    """Send nothing more to a destination until it is resumed. Its rows wait."""
    paused = update(destinations).where(destinations.c.name == destination)
    session.execute(paused.values(paused=True, reason=excerpt(reason)))


def close(session: Session, destination: str) -> None:
    """Close the breaker of a destination that has recovered. If it was paused meanwhile, it stays paused."""
    closed = update(destinations).where(destinations.c.name == destination)
    reason = case((destinations.c.paused, destinations.c.reason))
    session.execute(closed.values(failures=0, open_until=None, opened_at=None, reason=reason, recovered_at=func.now()))
