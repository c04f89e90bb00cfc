"""What can become of a delivery, and what that means for its row. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from domain.outbox.table import Row
from domain.runtime.backoff import delay

#: What is kept of an error, in characters: enough to recognise it by.
ERROR_LENGTH = 1_000


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A step was answered with no. The promise to ask is kept, so the row is processed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Moot:
    """There is nothing left to ask a step for. It was not asked, so it says nothing of the destination."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """It can never succeed: dead at once."""

    error: str


@dataclass(frozen=True, slots=True)
class Failed:
    """This one, this time: an attempt is spent and the row waits, dead after the last attempt."""

    error: str
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The destination is down, throttles or is broken: the row waits, and spends an attempt only if it is to blame."""

    error: str
    retry_after: timedelta | None = None
    #: It said that it is asked too much: however often it says so, no row is to blame.
    throttled: bool = False
    #: It said that it wants nothing more: it is paused until an operator resumes it.
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Not sent: an earlier row of its aggregate did not leave, or the destination went down."""


Outcome = Delivered | Refused | Moot | Rejected | Failed | Unreachable | Held

#: The two that most rows get, and that have nothing else to say.
DELIVERED = Delivered()
HELD = Held()


Delivery = tuple[Row, Outcome]


def excerpt(error: str) -> str:
    """Return what is kept of an error. PostgreSQL's text holds neither NUL nor half a character, and a server may
    answer anything.
    """
    return error.replace("\0", "")[:ERROR_LENGTH].encode(errors="replace").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How a row that did not leave is rewritten. One of `wait`, `until` and `dead` is set.

    `unreachable` says that it found its destination down, `own_fault` that it took the blame.
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
class Retries:
    """How hard to try: how often, how soon at first, and how seldom at last."""

    max_attempts: int = 12
    #: The first retry comes at most this long after a failure.
    first: timedelta = timedelta(seconds=1)
    #: No retry waits longer, unless the server's Retry-After asks for more (a day at most).
    longest: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a destination's troubles are judged.

    `pause` is how long its breaker stays open, `recovered_at` when it was last found up
    again, `roll` the dice, from 0 up to 1.
    """

    retries: Retries
    pause: timedelta
    recovered_at: datetime | None
    roll: Callable[[], float]


def changes(deliveries: Sequence[Delivery], policy: Policy) -> Sequence[Change]:
    """Return how to rewrite the rows that did not leave. `deliveries` are in order of id.

    What waits makes all later rows of its aggregate wait with it.
    """
    waiting: dict[UUID, Change] = {}
    found = []
    for row, outcome in deliveries:
        change = _change(row, outcome, waiting.get(row.aggregate_id), policy)
        if change is None:
            continue
        found.append(change)
        if not change.dead:
            waiting[row.aggregate_id] = change
    return found


def _change(row: Row, outcome: Outcome, ahead: Change | None, policy: Policy) -> Change | None:
    if row.waits_until is not None:
        return Change(row=row, attempts=row.attempts, until=row.waits_until)
    match outcome:
        case Delivered() | Refused() | Moot():
            return None
        case Held():
            return ahead and Change(row=row, attempts=row.attempts, wait=ahead.wait, until=ahead.until)
        case Unreachable() if not is_its_own_fault(row, outcome, policy.recovered_at):
            return Change(row=row, attempts=row.attempts, wait=policy.pause, error=outcome.error, unreachable=True)
        case _:
            return _judge(row, outcome, policy)


def is_its_own_fault(row: Row, outcome: Outcome, recovered_at: datetime | None) -> bool:
    """Tell whether a row that finds its destination down once more is itself to blame.

    It is when the destination has worked for others since this row last found it down.
    Without this, one event that a consumer can only answer with 500 would keep the
    breaker of a healthy destination opening for ever.
    """
    if not isinstance(outcome, Unreachable) or outcome.throttled:
        return False
    if outcome.gone or row.unreachable_at is None or recovered_at is None:
        return False
    return recovered_at > row.unreachable_at


def _judge(row: Row, outcome: Rejected | Failed | Unreachable, policy: Policy) -> Change:
    attempts = row.attempts + 1
    down = isinstance(outcome, Unreachable)
    change = Change(row=row, attempts=attempts, error=outcome.error, unreachable=down, own_fault=down)
    if isinstance(outcome, Rejected) or attempts >= policy.retries.max_attempts:
        return replace(change, dead=True)
    wait = delay(attempts, first=policy.retries.first, cap=policy.retries.longest, jitter=policy.roll())
    return replace(change, wait=max(wait, outcome.retry_after or wait))
