"""A value from elsewhere that is kept in memory, and read again at intervals or when something is missing in it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from domain.runtime.rounds import isolate_round

T = TypeVar("T")

ADVICE = "What was read before is used on. Report this error."

#: Who asks for a new value has it within this time, or the call that reads it hangs. It is a little less than requests
#: wait, so that each of them knows.
OVERDUE_SECONDS = 5.0

HANGS = (
    "What was read before is used on, and who has a credential that is not in it is answered 503. Look at the network,"
    " and at the resolver of names, of this machine."
)

log = structlog.get_logger()


class Missing(Exception):
    """Raised when something is missing that may be there soon: wait for `read`, and look once more."""

    def __init__(self, read: Future[None]) -> None:
        super().__init__()
        self.read = read


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What those wait for who have asked for a new value, and since when the first of them waits."""

    read: Future[None] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        # Many wait for it: none of them can cancel it.
        self.read.set_running_or_notify_cancel()

    @property
    def is_overdue(self) -> bool:
        return time.monotonic() - self.since > OVERDUE_SECONDS


class Refreshed(Generic[T]):
    """The last value that could be read. A thread of its own reads it, so no request waits without being asked to.

    `read` is called every `every_seconds` and, when `again` is called, sooner, but not within `soonest_seconds` of the
    last time: who sends nonsense can't cause a call each time. If it returns None, the value stays as it was.
    """

    def __init__(
        self, name: str, read: Callable[[], T | None], first: T, *, every_seconds: float, soonest_seconds: float
    ) -> None:
        self.value = first
        #: When the call began that has returned the value, by the monotonic clock.
        self.read_at = float("-inf")
        self._has_succeeded = False
        self._read = read
        self._every_seconds = every_seconds
        self._soonest_seconds = soonest_seconds
        self._changed = threading.Condition()
        self._began_at = float("-inf")
        self._is_stopped = False
        #: Who has asked for a new value since the last call began, and before that.
        self._wanted: _Wanted | None = None
        self._reading_for: _Wanted | None = None
        self._has_warned = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to read. Until then there is the first value."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more. It does not wait for the end of a call."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def again(self) -> Future[None]:
        """Return a future that is done when the value has been read once more."""
        with self._changed:
            self._wanted = wanted = self._wanted or _Wanted()
            self._changed.notify_all()
        self._warn_if_it_hangs()
        return wanted.read

    @property
    def is_current(self) -> bool:
        """Whether the value could be read the last time, and nobody has waited in vain for a new one since."""
        return self._has_succeeded and not self._hangs()

    def _hangs(self) -> bool:
        # In this order: those who wait move from the first place to the second one.
        return any(one.is_overdue for one in (self._wanted, self._reading_for) if one)

    def _warn_if_it_hangs(self) -> None:
        if self._hangs() and not self._has_warned:
            self._has_warned = True
            log.warning("refreshed.hangs", value=self._thread.name, seconds=OVERDUE_SECONDS, advice=HANGS)

    def _run(self) -> None:
        while self._wait():
            isolate_round(self._refresh, thread=self._thread.name, advice=ADVICE)
            self._end()

    def _wait(self) -> bool:
        """Wait until it is time to read. Return False if that never comes."""
        with self._changed:
            while not self._is_stopped and (seconds := self._next_at() - time.monotonic()) > 0:
                self._changed.wait(seconds)
            self._began_at = time.monotonic()
            self._reading_for, self._wanted = self._wanted, None
            return not self._is_stopped

    def _next_at(self) -> float:
        return self._began_at + (self._soonest_seconds if self._wanted else self._every_seconds)

    def _refresh(self) -> None:
        value = None
        try:
            value = self._read()
        finally:
            if value is not None:
                self.value, self.read_at = value, self._began_at
            self._has_succeeded = value is not None

    def _end(self) -> None:
        reading_for, self._reading_for, self._has_warned = self._reading_for, None, False
        if reading_for:
            reading_for.read.set_result(None)
