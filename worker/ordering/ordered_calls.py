"""Ordered calls: one call per row, in order within an aggregate and concurrently across aggregates."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from domain.outbox import LEASE, NOT_SENT, POSTPONED, Outcome, Row
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
        take much longer than the others are InFlight: nobody waits for them here. While many calls hang, a row that was
        refused before is Postponed: it may hang as it did, and those that would be taken would find no thread.
        """
        queues, is_crowded = by_aggregate(rows).values(), self._threads.is_crowded()
        postponed = {queue[0].id for queue in queues if is_crowded and queue[0].unreachable_at}
        outcomes = self._called(rows, [queue for queue in queues if queue[0].id not in postponed], call)
        return [POSTPONED if row.id in postponed else outcome for row, outcome in zip(rows, outcomes, strict=True)]

    def _called(
        self, rows: Sequence[Row], queues: Sequence[Sequence[Row]], call: Callable[[Row], Outcome]
    ) -> Sequence[Outcome]:
        """Call for the rows of these queues, each of one aggregate, and return the outcomes of all rows."""
        if not queues:
            return [NOT_SENT] * len(rows)
        batch = BatchOfCalls(call, self._pace, self._answer_times, aggregates=len(queues))
        for queue in queues:
            self._threads.submit(batch.call_in_order, queue)
        batch.wait()
        outcomes = batch.end(rows, self._longest_call)
        self._threads.note(outcomes)
        return outcomes

    def close(self) -> None:
        self._threads.close()
