"""Ordered calls: one call per row, in order within an aggregate and concurrently across aggregates."""

import time
from collections.abc import Callable, Sequence
from threading import Event

from domain.outbox import NOT_SENT, Outcome, Row, Unreachable
from worker.isolate import isolate_row
from worker.ordering import calling_threads
from worker.ordering.rules import BATCH_SECONDS, allows_next, by_aggregate


class OrderedCalls:
    """The threads that call one destination, as many as its route allows. When `stopping` is set, no call begins."""

    def __init__(self, concurrency: int, stopping: Event) -> None:
        self._threads = calling_threads.pool(concurrency)
        self._stopping = stopping

    def deliver(self, rows: Sequence[Row], call: Callable[[Row], Outcome]) -> Sequence[Outcome]:
        """Call once for each row and return the outcomes in the order of `rows`.

        Rows of an aggregate behind one that has to be tried again are NotSent. So is every row whose call has not
        begun when the destination turns out to be unreachable, when the time of the batch is over, or when `stopping`
        is set.
        """
        batch = _Batch(call, self._stopping, time.monotonic() + BATCH_SECONDS)
        runs = self._threads.map(batch.in_order, by_aggregate(rows).values())
        outcomes = {row_id: outcome for run in runs for row_id, outcome in run}
        return [outcomes[row.id] for row in rows]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Batch:
    """The calls of one batch, and the conditions that end it early."""

    def __init__(self, call: Callable[[Row], Outcome], stopping: Event, deadline: float) -> None:
        self._call = call
        self._stopping = stopping
        self._deadline = deadline
        self._is_down = False

    def in_order(self, rows: Sequence[Row]) -> Sequence[tuple[int, Outcome]]:
        outcomes: list[tuple[int, Outcome]] = []
        is_next = True
        for row in rows:
            outcome = isolate_row(self._call, row) if is_next and not self._is_over() else NOT_SENT
            outcomes.append((row.id, outcome))
            self._is_down = self._is_down or isinstance(outcome, Unreachable)
            is_next = is_next and allows_next(outcome)
        return outcomes

    def _is_over(self) -> bool:
        return self._is_down or self._stopping.is_set() or time.monotonic() > self._deadline
