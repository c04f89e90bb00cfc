"""Sending rows one by one: in order within an aggregate, at once across aggregates."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from uuid import UUID

import structlog

from domain.outbox import Delivered, Failed, Held, Outcome, Refused, Rejected, Row, Unreachable

log = structlog.get_logger()


class Calls:
    """As many threads as a destination may be called by at once."""

    def __init__(self, concurrency: int) -> None:
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="calls")

    def deliver(self, rows: Sequence[Row], call: Callable[[Row], Outcome]) -> Sequence[Outcome]:
        """Call once for each row and return the outcomes in the order of `rows`.

        What follows a row that did not leave is Held, and so is everything not yet begun
        when the destination turns out to be unreachable.
        """
        by_aggregate: dict[UUID, list[Row]] = defaultdict(list)
        for row in rows:
            by_aggregate[row.aggregate_id].append(row)
        down = Event()
        runs = self._threads.map(lambda run: _in_order(run, call, down), by_aggregate.values())
        outcomes = {row_id: outcome for run in runs for row_id, outcome in run}
        return [outcomes[row.id] for row in rows]

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


def _in_order(rows: Sequence[Row], call: Callable[[Row], Outcome], down: Event) -> Sequence[tuple[int, Outcome]]:
    outcomes: list[tuple[int, Outcome]] = []
    goes_on = True
    for row in rows:
        outcome = _guarded(call, row) if goes_on and not down.is_set() else Held()
        outcomes.append((row.id, outcome))
        if isinstance(outcome, Unreachable):
            down.set()
        # A dead row lets its aggregate go on; the gap is counted and shown.
        goes_on = goes_on and isinstance(outcome, Delivered | Refused | Rejected)
    return outcomes


def _guarded(call: Callable[[Row], Outcome], row: Row) -> Outcome:
    """Let a poisonous row fail alone: whatever it breaks, its neighbours go on."""
    try:
        return call(row)
    except Exception as error:
        log.exception("delivery.broke", row=row.id)
        return Failed(f"{type(error).__name__}: {error}")
