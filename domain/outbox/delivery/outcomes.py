"""The outcomes of a delivery. Pure."""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any

from domain.outbox.table import Row
from domain.runtime.redaction import redact

#: The part of an error message that is stored, in characters: enough to recognise it.
ERROR_LENGTH = 1_000

#: A longer `Retry-After` than this is taken for this, as long as no attempt is spent.
LONGEST_RETRY_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has it."""


@dataclass(frozen=True, slots=True)
class Answered(Delivered):
    """A step was answered with yes, and with these facts."""

    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Declined:
    """A step was answered with no. The question has been asked, so the row is processed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Obsolete:
    """A step has nothing left to ask. It was not called, so this shows nothing about the destination."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The destination will never take this event: it is a dead letter at once, unless everybody is answered so."""

    error: str


@dataclass(frozen=True, slots=True)
class Failed:
    """This delivery failed. It spends an attempt and the row waits; after the last attempt it is a dead letter."""

    error: str
    retry_after: timedelta | None = None


class Cause(Enum):
    """Why a destination did not take a row. Whose fault that is, its neighbours show (see `blame`)."""

    #: Nothing answered, or a gateway said that nothing answers behind it.
    OUTAGE = "outage"
    #: It gets more calls than it can take.
    LOAD = "load"
    #: It broke while it handled the row.
    ERROR = "error"
    #: It lets nobody in who calls it like this, or is not there: a wrong password, a wrong address.
    DENIED = "denied"
    #: It wants nothing more.
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The destination did not take the row, and may take it later. It spends an attempt only if the row is at fault."""

    error: str
    retry_after: timedelta | None = None
    cause: Cause = Cause.OUTAGE


@dataclass(frozen=True, slots=True)
class NotSent:
    """The row was not sent: an earlier row of its aggregate has to be tried again, the destination went down, the time
    of the batch was over, or the process stops.
    """


@dataclass(frozen=True, slots=True)
class Postponed:
    """The row was not sent: it was refused before, calls that hang hold many threads, and others go first."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """The call has not ended. Its row waits for that, for `within` at the most, and its lane is not kept for it.

    `answer` gets the outcome when the call ends (see `settle_late`).
    """

    within: timedelta
    answer: "Future[Outcome]"


Outcome = Delivered | Declined | Obsolete | Rejected | Failed | Unreachable | NotSent | Postponed | InFlight

#: The outcomes that have no fields.
DELIVERED = Delivered()
NOT_SENT = NotSent()
POSTPONED = Postponed()

#: What is said of a destination whose probe is not answered.
NO_ANSWER = Unreachable("the probe was not answered in the time that an answer usually takes; it is waited for")


Delivery = tuple[Row, Outcome]


def is_processed(outcome: Outcome) -> bool:
    """Return whether a row needs no further attempt: it was taken, or there was nothing left to ask."""
    return isinstance(outcome, Delivered | Declined | Obsolete)


def is_taken(outcome: Outcome) -> bool:
    """Return whether a destination took a row, or answered the question of a step."""
    return isinstance(outcome, Delivered | Declined)


def is_refused(outcome: Outcome) -> bool:
    """Return whether a destination did not take a row that it was sent."""
    return isinstance(outcome, Unreachable | Rejected)


def error_of(outcome: Outcome) -> str:
    """Return what went wrong, or nothing."""
    return getattr(outcome, "error", "")


def retry_after_of(outcome: Outcome) -> timedelta:
    """Return how long the server asked to be left alone."""
    return getattr(outcome, "retry_after", None) or timedelta(0)


def excerpt(error: str) -> str:
    """Return the part of an error message that is stored.

    A server may answer anything, such as the request with its secrets, which are taken out. PostgreSQL's text can hold
    neither NUL nor half a character.
    """
    return redact(error).replace("\0", "")[:ERROR_LENGTH].encode(errors="replace").decode()
