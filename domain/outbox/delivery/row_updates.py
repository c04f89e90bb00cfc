"""How rows that were not delivered are updated. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from domain.outbox.delivery.blame import Verdict
from domain.outbox.delivery.outcomes import (
    LONGEST_RETRY_AFTER,
    Delivery,
    Failed,
    InFlight,
    NotSent,
    Outcome,
    Postponed,
    Rejected,
    Unreachable,
    retry_after_of,
)
from domain.outbox.table import LONG_AGO, Row
from domain.runtime.backoff import delay

#: How long a row waits that is in doubt for the first time. Each further time it waits twice as long.
FIRST_DOUBT = timedelta(seconds=1)

#: A row that is in doubt never waits longer, so it is delivered soon after its destination can take it. Only a
#: `Retry-After` may ask for more.
LONGEST_DOUBT = timedelta(seconds=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowUpdate:
    """How a row that was not delivered is updated. One of `wait`, `until` and `dead` is set.

    With `refused` its destination did not take it, and it is remembered when that was.
    """

    row: Row
    attempts: int
    wait: timedelta | None = None
    until: datetime | None = None
    error: str | None = None
    dead: bool = False
    refused: bool = False

    def waits_after(self, at: datetime) -> bool:
        """Return whether the row waits. The one that it was behind may not wait any more."""
        return not self.dead and (self.until is None or self.until > at)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a delivery is tried, and how long each retry waits."""

    max_attempts: int
    #: The first retry comes at most this long after a failure.
    first: timedelta
    #: No retry waits longer, unless the server's Retry-After asks for more (a day at most).
    longest: timedelta


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What decides, besides the outcomes, how rows that were not delivered are updated.

    `verdicts` are by the id of the row, `waits` until when the aggregates wait of which a row waits. `at` is the time,
    `open_for` is how long the circuit breaker stays open, and `roll` returns a random number from 0 up to 1.
    """

    retry_policy: RetryPolicy
    verdicts: Mapping[int, Verdict]
    waits: Mapping[UUID, datetime]
    at: datetime
    open_for: timedelta
    roll: Callable[[], float]


def row_updates(deliveries: Sequence[Delivery], circumstances: Circumstances) -> Sequence[RowUpdate]:
    """Return how to update the rows that were not delivered. `deliveries` are in order of id.

    A row that waits makes all later rows of its aggregate wait with it.
    """
    waiting: dict[UUID, RowUpdate] = {}
    found = []
    for row, outcome in deliveries:
        row_update = _row_update(row, outcome, waiting.get(row.aggregate_id), circumstances)
        if row_update is None:
            continue
        found.append(row_update)
        if not row_update.dead:
            waiting[row.aggregate_id] = row_update
    return found


def _row_update(row: Row, outcome: Outcome, ahead: RowUpdate | None, circumstances: Circumstances) -> RowUpdate | None:
    if row.waits_until is not None:
        until = circumstances.waits.get(row.aggregate_id, LONG_AGO)
        return RowUpdate(row=row, attempts=row.attempts, until=until)
    match outcome:
        case NotSent():
            return ahead and RowUpdate(row=row, attempts=row.attempts, wait=ahead.wait, until=ahead.until)
        case Postponed():
            return RowUpdate(row=row, attempts=row.attempts, wait=_doubt(row, timedelta(0), circumstances))
        case InFlight(within=within):
            return RowUpdate(row=row, attempts=row.attempts, until=circumstances.at + within)
        case Failed() | Unreachable() | Rejected():
            return _of_a_refused_row(row, outcome, circumstances)
        case _:
            return None


def _of_a_refused_row(row: Row, outcome: Rejected | Failed | Unreachable, circumstances: Circumstances) -> RowUpdate:
    refused = RowUpdate(row=row, attempts=row.attempts, error=outcome.error, refused=not isinstance(outcome, Failed))
    match circumstances.verdicts[row.id]:
        case Verdict.DOWN:
            return replace(refused, wait=circumstances.open_for)
        case Verdict.IN_DOUBT:
            return replace(refused, wait=_doubt(row, retry_after_of(outcome), circumstances))
        case Verdict.AT_FAULT:
            return _spend_attempt(replace(refused, attempts=row.attempts + 1), retry_after_of(outcome), circumstances)
        case Verdict.DEAD:
            return replace(refused, attempts=row.attempts + 1, dead=True)


def _doubt(row: Row, asked: timedelta, circumstances: Circumstances) -> timedelta:
    last = circumstances.at - row.unreachable_at if row.unreachable_at else timedelta(0)
    # Half of full jitter: the waits grow, whatever is rolled.
    wait = min(max(2 * last, FIRST_DOUBT), LONGEST_DOUBT) * (1 + circumstances.roll()) / 2
    return max(wait, min(asked, LONGEST_RETRY_AFTER))


def _spend_attempt(spent: RowUpdate, asked: timedelta, circumstances: Circumstances) -> RowUpdate:
    policy = circumstances.retry_policy
    if spent.attempts >= policy.max_attempts:
        return replace(spent, dead=True)
    wait = delay(spent.attempts, first=policy.first, cap=policy.longest, jitter=circumstances.roll())
    return replace(spent, wait=max(wait, asked))
