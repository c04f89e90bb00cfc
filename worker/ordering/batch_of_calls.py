"""A batch of calls, and when to wait for it no longer: a call that hangs delays no answer of its neighbours."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from statistics import median
from threading import Event, Lock

from domain.outbox import NOT_SENT, InFlight, Outcome, Row
from worker.isolate import isolate_row
from worker.ordering.pace import Pace
from worker.ordering.rules import BATCH_SECONDS, Streak, allows_next

#: A batch waits for a call that takes up to so many times as long as calls to its destination usually do.
TIMES_USUAL = 3.0

#: The calls whose median says how long one usually takes.
CALLS = 100

#: It waits for each call for as long at the least, in seconds: writing to PostgreSQL twice would take longer than that.
LEAST_PATIENCE_SECONDS = 0.05

#: While no call has ever been answered, a batch waits for this long: then its lane is better used for others.
FIRST_ANSWER_SECONDS = 1.0

#: So often, in seconds, a batch looks whether only calls are left that take too long.
LOOK_SECONDS = 0.025


class AnswerTimes:
    """How long the last calls to a destination took. Safe for threads."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=CALLS)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def patience_seconds(self) -> float:
        """Return how long a batch waits for a call."""
        seconds = self._seconds.copy()
        return max(LEAST_PATIENCE_SECONDS, TIMES_USUAL * median(seconds)) if seconds else FIRST_ANSWER_SECONDS


class BatchOfCalls:
    """The calls of one batch. Threads make them, one aggregate each at a time; another thread waits for them."""

    def __init__(
        self, call: Callable[[Row], Outcome], pace: Pace, answer_times: AnswerTimes, *, aggregates: int
    ) -> None:
        self._call = call
        self._pace = pace
        self._answer_times = answer_times
        self._deadline = time.monotonic() + BATCH_SECONDS
        self._streak = Streak(pace)
        self._lock = Lock()
        self._outcomes: dict[int, Outcome] = {}
        #: When the calls began that have not ended, by the id of their rows.
        self._begun: dict[int, float] = {}
        self._aggregates_left = aggregates
        self._ended = Event()
        #: Calls that nobody waited for any longer, by the id of the row. None: the batch is waited for.
        self._late: dict[int, Future[Outcome]] | None = None

    def call_in_order(self, rows: Sequence[Row]) -> None:
        """Call for the rows of one aggregate, one after the other, as long as each is taken."""
        for row in rows:
            if not self._pace_allows() or not allows_next(self._outcome(row)):
                break
        with self._lock:
            self._aggregates_left -= 1
            if not self._aggregates_left:
                self._ended.set()

    def wait(self) -> None:
        """Wait until the only calls left take too long to be waited for, or there are none."""
        while not self._ended.wait(LOOK_SECONDS) and self._is_worth_waiting():
            pass

    def end(self, rows: Sequence[Row], longest_call: timedelta) -> Sequence[Outcome]:
        """End the batch, so that no call begins any more. Return the outcomes in the order of `rows`."""
        with self._lock:
            self._late = {row_id: Future() for row_id in self._begun}
            self._pace.outlasted(len(self._late))
            in_flight = {row_id: InFlight(longest_call, answer) for row_id, answer in self._late.items()}
            outcomes: Mapping[int, Outcome] = self._outcomes | in_flight
        return [outcomes.get(row.id, NOT_SENT) for row in rows]

    def _pace_allows(self) -> bool:
        return not self._streak.is_down and self._pace.admit(1, self._deadline) > 0

    def _outcome(self, row: Row) -> Outcome:
        """Call for a row that was admitted."""
        outcome = isolate_row(self._call, row) if self._begin(row) else NOT_SENT
        self._streak.add([outcome])
        self._end(row, outcome)
        return outcome

    def _begin(self, row: Row) -> bool:
        """Note that a call begins. Return False if the batch was ended before."""
        with self._lock:
            if self._late is None:
                self._begun[row.id] = time.monotonic()
            return self._late is None

    def _end(self, row: Row, outcome: Outcome) -> None:
        with self._lock:
            begun = self._begun.pop(row.id, None)
            late = self._late and self._late.get(row.id)
            if begun is not None:
                self._answer_times.add(time.monotonic() - begun)
            if begun is not None and self._late is None:
                self._outcomes[row.id] = outcome
        if late:
            self._pace.answered_late(row, outcome)
            late.set_result(outcome)
        else:
            self._pace.answered([row], [outcome])

    def _is_worth_waiting(self) -> bool:
        """Return whether a call is in flight that does not take too long yet, or may still begin."""
        with self._lock:
            now, begun = time.monotonic(), max(self._begun.values(), default=None)
        if begun is None:
            return now < self._deadline
        return now - begun < self._answer_times.patience_seconds()
