"""Sending rows one by one: in order within an aggregate, at once across aggregates."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from uuid import UUID

import structlog

from domain.outbox import HELD, Delivered, Failed, Moot, Outcome, Refused, Rejected, Row, Unreachable

#: No call of a batch begins later than this after its first one, so that what has been
#: delivered is soon settled: a kill repeats no more than this much work.
BATCH_SECONDS = 1.0

log = structlog.get_logger()


class Calls:
    """As many threads as a destination may be called by at once. None begins a call when `stopping` is set."""

    def __init__(self, concurrency: int, stopping: Event) -> None:
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="calls")
        self._stopping = stopping

    def deliver(self, rows: Sequence[Row], call: Callable[[Row], Outcome]) -> Sequence[Outcome]:
        """Call once for each row and return the outcomes in the order of `rows`.

        What follows a row that did not leave is Held, and so is everything not begun yet
        when the destination turns out to be unreachable, or the time of the batch is over.
        """
        by_aggregate: dict[UUID, list[Row]] = defaultdict(list)
        for row in rows:
            by_aggregate[row.aggregate_id].append(row)
        batch = _Batch(call, self._stopping, time.monotonic() + BATCH_SECONDS)
        runs = self._threads.map(batch.in_order, by_aggregate.values())
        outcomes = {row_id: outcome for run in runs for row_id, outcome in run}
        return [outcomes[row.id] for row in rows]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Batch:
    """The calls of one batch, and what ends them early."""

    def __init__(self, call: Callable[[Row], Outcome], stopping: Event, ends: float) -> None:
        self._call = call
        self._stopping = stopping
        self._ends = ends
        self._is_down = False

    def in_order(self, rows: Sequence[Row]) -> Sequence[tuple[int, Outcome]]:
        outcomes: list[tuple[int, Outcome]] = []
        goes_on = True
        for row in rows:
            outcome = _guarded(self._call, row) if goes_on and not self._is_over() else HELD
            outcomes.append((row.id, outcome))
            self._is_down = self._is_down or isinstance(outcome, Unreachable)
            # A dead row lets its aggregate go on; the gap is counted and shown.
            goes_on = goes_on and isinstance(outcome, Delivered | Refused | Moot | Rejected)
        return outcomes

    def _is_over(self) -> bool:
        return self._is_down or self._stopping.is_set() or time.monotonic() > self._ends


def _guarded(call: Callable[[Row], Outcome], row: Row) -> Outcome:
    """Let a poisonous row fail alone: whatever it breaks, its neighbours go on."""
    try:
        return call(row)
    except Exception as error:
        log.exception("delivery.broke", row=row.id)
        return Failed(f"{type(error).__name__}: {error}")
