"""Ordered calls: one call per row, in order within an aggregate and concurrently across aggregates."""

import time
from collections.abc import Callable, Sequence

from domain.outbox import NOT_SENT, Outcome, Row
from worker.isolate import isolate_row
from worker.ordering import calling_threads
from worker.ordering.pace import Pace
from worker.ordering.rules import BATCH_SECONDS, Streak, allows_next, by_aggregate


class OrderedCalls:
    """The threads that call one destination, as many as its route allows, at its pace."""

    def __init__(self, concurrency: int, pace: Pace) -> None:
        self._threads = calling_threads.pool(concurrency)
        self._pace = pace

    def deliver(self, rows: Sequence[Row], call: Callable[[Row], Outcome]) -> Sequence[Outcome]:
        """Call once for each row and return the outcomes in the order of `rows`.

        Rows of an aggregate behind one that was not taken are NotSent. So is every row whose call has not begun when
        the destination turns out to be down, when the time of the batch is over, or when the process stops.
        """
        batch = _Batch(call, self._pace, time.monotonic() + BATCH_SECONDS)
        runs = self._threads.map(batch.in_order, by_aggregate(rows).values())
        outcomes = {row_id: outcome for run in runs for row_id, outcome in run}
        return [outcomes[row.id] for row in rows]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Batch:
    """The calls of one batch, and the conditions that end it early."""

    def __init__(self, call: Callable[[Row], Outcome], pace: Pace, deadline: float) -> None:
        self._call = call
        self._pace = pace
        self._deadline = deadline
        self._streak = Streak(pace)

    def in_order(self, rows: Sequence[Row]) -> Sequence[tuple[int, Outcome]]:
        outcomes: list[tuple[int, Outcome]] = []
        is_next = True
        for row in rows:
            outcome = self._outcome(row) if is_next else NOT_SENT
            outcomes.append((row.id, outcome))
            is_next = is_next and allows_next(outcome)
        return outcomes

    def _outcome(self, row: Row) -> Outcome:
        if self._streak.is_down or not self._pace.admit(1, self._deadline):
            return NOT_SENT
        outcome = isolate_row(self._call, row)
        self._pace.answered([row], [outcome])
        self._streak.add([outcome])
        return outcome
