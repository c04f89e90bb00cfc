"""The outcomes of a delivery, and what each means for its row. Pure."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from domain.outbox.table import Row
from domain.runtime.backoff import delay

#: The part of an error message that is stored, in characters: enough to recognise it.
ERROR_LENGTH = 1_000


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has it."""


@dataclass(frozen=True, slots=True)
class Declined:
    """A step was answered with no. The question has been asked, so the row is processed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Obsolete:
    """A step has nothing left to ask. It was not called, so this shows nothing about the destination."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The event can never be delivered: it is a dead letter at once."""

    error: str


@dataclass(frozen=True, slots=True)
class Failed:
    """This delivery failed. It spends an attempt and the row waits; after the last attempt it is a dead letter."""

    error: str
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The destination is down, throttles or is misconfigured. The row waits; it spends an attempt only if the row is
    itself the cause (see `is_its_own_fault`).
    """

    error: str
    retry_after: timedelta | None = None
    #: The destination said that it gets too many calls. However often it says so, no row is the cause.
    throttled: bool = False
    #: The destination said that it wants nothing more. It is paused until an operator resumes it.
    gone: bool = False


@dataclass(frozen=True, slots=True)
class NotSent:
    """The row was not sent: an earlier row of its aggregate has to be tried again, the destination went down, the time
    of the batch was over, or the process stops.
    """


Outcome = Delivered | Declined | Obsolete | Rejected | Failed | Unreachable | NotSent

#: The two outcomes that most rows have, and that have no fields.
DELIVERED = Delivered()
NOT_SENT = NotSent()


Delivery = tuple[Row, Outcome]


def excerpt(error: str) -> str:
    """Return the part of an error message that is stored.

    A server may answer anything, but PostgreSQL's text can hold neither NUL nor half a character.
    """
    return error.replace("\0", "")[:ERROR_LENGTH].encode(errors="replace").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowUpdate:
    """How a row that was not delivered is updated. One of `wait`, `until` and `dead` is set.

    With `unreachable` the row found its destination down, with `own_fault` it is itself the cause.
    """

    row: Row
    attempts: int
    wait: timedelta | None = None
    until: datetime | None = None
    error: str | None = None
    dead: bool = False
    unreachable: bool = False
    own_fault: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a delivery is tried, and how long each retry waits."""

    max_attempts: int
    #: The first retry comes at most this long after a failure.
    first: timedelta
    #: No retry waits longer, unless the server's Retry-After asks for more (a day at most).
    longest: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What decides, besides the outcomes, how rows that were not delivered are updated.

    `open_for` is how long the circuit breaker stays open, `at_fault` has the ids of the rows that are themselves the
    cause of what they met (see `rows_at_fault`), and `roll` returns a random number from 0 up to 1.
    """

    retry_policy: RetryPolicy
    open_for: timedelta
    at_fault: Collection[int]
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
        return RowUpdate(row=row, attempts=row.attempts, until=row.waits_until)
    match outcome:
        case Delivered() | Declined() | Obsolete():
            return None
        case NotSent():
            return ahead and RowUpdate(row=row, attempts=row.attempts, wait=ahead.wait, until=ahead.until)
        case Unreachable(error=error) if row.id not in circumstances.at_fault:
            return RowUpdate(row=row, attempts=row.attempts, wait=circumstances.open_for, error=error, unreachable=True)
        case _:
            return _spend_attempt(row, outcome, circumstances)


def rows_at_fault(deliveries: Sequence[Delivery], recovered_at: datetime | None) -> Collection[int]:
    """Return the ids of the rows that find their destination down once more and are themselves the cause."""
    return {row.id for row, outcome in deliveries if is_its_own_fault(row, outcome, recovered_at)}


def is_its_own_fault(row: Row, outcome: Outcome, recovered_at: datetime | None) -> bool:
    """Return whether a row that finds its destination down once more is itself the cause.

    It is the cause if the destination has worked for other rows since this one last found it down. Without this
    rule, one event that a consumer always answers with 500 would open the breaker of a healthy destination for ever.
    """
    if not isinstance(outcome, Unreachable) or outcome.throttled:
        return False
    if outcome.gone or row.unreachable_at is None or recovered_at is None:
        return False
    return recovered_at > row.unreachable_at


def _spend_attempt(row: Row, outcome: Rejected | Failed | Unreachable, circumstances: Circumstances) -> RowUpdate:
    policy = circumstances.retry_policy
    attempts = row.attempts + 1
    down = isinstance(outcome, Unreachable)
    row_update = RowUpdate(row=row, attempts=attempts, error=outcome.error, unreachable=down, own_fault=down)
    if isinstance(outcome, Rejected) or attempts >= policy.max_attempts:
        return replace(row_update, dead=True)
    wait = delay(attempts, first=policy.first, cap=policy.longest, jitter=circumstances.roll())
    return replace(row_update, wait=max(wait, outcome.retry_after or wait))
