"""The pace at which a destination is called: step by step after an outage, and no storm on one that sheds load."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Event
from uuid import UUID

from domain.outbox import Cause, Outcome, Row, Unreachable, is_taken

#: After an outage one call may be in flight, then one more for each row that is taken, up to this many. From then on
#: there is no limit.
RECOVERED_AT_CALLS = 16

#: While a destination sheds load, so many calls begin for each row that it takes: enough to find out at once when it
#: can take more. Source: Site Reliability Engineering, Beyer et al., 2016, chapter 21, "Client-Side Throttling".
CALLS_FOR_EACH_TAKEN = 2.0

#: So many calls begin in a second even if hardly any row is taken.
LEAST_RATE = 1.0

#: The rows that were taken in the last seconds tell how many the destination can take.
MEASURED_SECONDS = 5.0

#: When nothing was shed for this time, twice as many calls begin, and after the second time as many as there are.
DOUBLED_AFTER_SECONDS, FREE_AFTER_SECONDS = 1.0, 10.0

#: A call that waits for its turn looks this often, in seconds, whether the process stops.
LOOK_SECONDS = 0.1

UNLIMITED = float("inf")


class Pace:
    """How many calls to one destination may begin now. It is shared by all threads of the process that call it.

    When `stopping` is set, no call may begin.
    """

    def __init__(self, stopping: Event) -> None:
        self.stopping = stopping
        #: Whether the destination has ever taken a row.
        self.has_taken = False
        #: Whether a call may begin at all, by how many late answers are not settled: who makes calls may have no thread
        #: left for one.
        self.has_room: Callable[[int], bool] = lambda _: True
        self._changed = Condition()
        self._in_flight = 0
        #: How many calls may be in flight.
        self._window = UNLIMITED
        self._rate = Rate()

    def begin_recovery(self) -> None:
        """The destination was down and is up again: begin with one call."""
        with self._changed:
            self._window = 1

    def most(self, seconds: float) -> float:
        """Return about how many calls may begin in the next seconds, one at the least."""
        return max(1.0, self._rate.rate * seconds)

    def admit(self, wanted: int, until: float) -> int:
        """Wait until a call may begin, and return how many of those that are wanted.

        None may if the monotonic clock says `until` before, or the process stops. Tell what they are `answered`.
        """
        with self._changed:
            while not self.stopping.is_set() and (now := time.monotonic()) < until:
                room = min(wanted, self._window - self._in_flight)
                admitted = self._rate.admit(room, now) if room >= 1 else 0
                if admitted:
                    self._in_flight += admitted
                    return admitted
                self._changed.wait(min(until - now, LOOK_SECONDS))
            return 0

    def outlasted(self, calls: int) -> None:
        """Let other calls begin in place of so many that outlast their batch. One that hangs would stop all others."""
        with self._changed:
            self._in_flight -= calls
            self._changed.notify_all()

    def answered(self, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> None:
        """Count the answers to calls that were admitted."""
        has_refused = any(isinstance(one, Unreachable) for one in outcomes)
        with self._changed:
            self._in_flight -= len(rows)
            taken = self._count(rows, outcomes)
            if self._window < UNLIMITED:
                window = 1 if has_refused else self._window + taken
                self._window = window if window <= RECOVERED_AT_CALLS else UNLIMITED
            self._changed.notify_all()

    def answered_late(self, row: Row, outcome: Outcome) -> None:
        """Count the answer to a call that has outlasted its batch. It says nothing of how many calls may begin now."""
        with self._changed:
            self._count([row], [outcome])
            self._changed.notify_all()

    def _count(self, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> int:
        """Count what was taken, and what was refused because of load. Return how many rows were taken."""
        taken = sum(map(is_taken, outcomes))
        refused = [(row, one) for row, one in zip(rows, outcomes, strict=True) if isinstance(one, Unreachable)]
        self.has_taken = self.has_taken or taken > 0
        self._rate.count(taken, [row.aggregate_id for row, one in refused if one.cause is Cause.LOAD])
        return taken


class Rate:
    """How many calls may begin in a second: any number, unless the destination sheds load. Not safe for threads."""

    def __init__(self) -> None:
        self.rate = UNLIMITED
        #: From when on the next call may begin.
        self._next_at = 0.0
        self._limited_at = self._doubled_at = self._shed_at = float("-inf")
        self._shed_to: UUID | None = None
        #: When rows were taken lately, and how many.
        self._taken: deque[tuple[float, int]] = deque()

    def admit(self, wanted: float, now: float) -> int:
        """Return how many calls may begin at this moment."""
        if self.rate == UNLIMITED:
            return int(wanted)
        # Calls that might have begun earlier may begin now, but no more than those of one second.
        self._next_at = max(self._next_at, now - 1)
        admitted = max(0, int(min(wanted, (now - self._next_at) * self.rate + 1)))
        self._next_at += admitted / self.rate
        return admitted

    def count(self, taken: int, shed: Sequence[UUID], now: float | None = None) -> None:
        """Count how many rows were taken, and which aggregates were refused because of load."""
        now = time.monotonic() if now is None else now
        if taken:
            self._taken.append((now, taken))
        while self._taken and self._taken[0][0] < now - MEASURED_SECONDS:
            self._taken.popleft()
        for aggregate in shed:
            self._slow_down(aggregate, now)
        self._speed_up(now)

    def _slow_down(self, aggregate: UUID, now: float) -> None:
        # One row that is refused again and again is no load.
        is_alone = self._shed_to in (None, aggregate) or now - self._shed_at > FREE_AFTER_SECONDS
        self._shed_to, self._shed_at = aggregate, now
        if self.rate == UNLIMITED:
            if is_alone:
                return
            self._next_at = self._limited_at = now
        # At the beginning the last second tells most, as the destination may have taken more before.
        seconds = min(max(now - self._limited_at, 1.0), MEASURED_SECONDS)
        taken = sum(count for at, count in self._taken if at > now - seconds)
        # If it takes nothing at all, it is down: the circuit breaker says when it is called again.
        self.rate = max(LEAST_RATE, CALLS_FOR_EACH_TAKEN * taken / seconds) if taken else UNLIMITED

    def _speed_up(self, now: float) -> None:
        if now - self._shed_at > FREE_AFTER_SECONDS:
            self.rate = UNLIMITED
        elif now - max(self._shed_at, self._doubled_at) > DOUBLED_AFTER_SECONDS:
            self.rate *= 2
            self._doubled_at = now
