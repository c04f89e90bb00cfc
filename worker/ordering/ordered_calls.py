"""Ordered calls: one call per row, in order within an aggregate and concurrently across aggregates."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from domain.outbox import LEASE, Outcome, Row
from worker.ordering.batch_of_calls import AnswerTimes, BatchOfCalls
from worker.ordering.calling_threads import CallingThreads
from worker.ordering.pace import Pace
from worker.ordering.rules import by_aggregate


class OrderedCalls:
    """The threads that call one destination, as many as its route allows, at its pace.

    A call takes `timeout_seconds` at the most, or little more. Calls that hang do not count while others are answered.
    """

    def __init__(self, concurrency: int, pace: Pace, *, timeout_seconds: float) -> None:
        self._threads = CallingThreads(concurrency)
        pace.has_room = self._threads.has_room
        self._pace = pace
        self._answer_times = AnswerTimes()
        self._longest_call = timedelta(seconds=timeout_seconds) + LEASE

    def deliver(self, rows: Sequence[Row], call: Callable[[Row], Outcome]) -> Sequence[Outcome]:
        """Call once for each row and return the outcomes in the order of `rows`.

        Rows of an aggregate behind one that was not taken are NotSent. So is every row whose call has not begun when
        the destination turns out to be down, when the time of the batch is over, or when the process stops. Calls that
        take much longer than the others are InFlight: nobody waits for them here.
        """
        if not rows:
            return []
        queues = by_aggregate(rows)
        batch = BatchOfCalls(call, self._pace, self._answer_times, aggregates=len(queues))
        for queue in queues.values():
            self._threads.submit(batch.call_in_order, queue)
        batch.wait()
        outcomes = batch.end(rows, self._longest_call)
        self._threads.note(outcomes)
        return outcomes

    def close(self) -> None:
        self._threads.close()
