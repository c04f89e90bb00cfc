"""What keeps the rows of one aggregate in order, whether rows are sent one by one or in batches."""

from collections import defaultdict, deque
from collections.abc import Sequence
from uuid import UUID

from domain.outbox import REFUSED_IN_A_ROW, Outcome, Row, Unreachable, is_processed, is_refused, is_taken
from worker.ordering.pace import Pace

#: No call begins later than this after the first call of its batch, so that delivered rows are settled soon:
#: a worker that is killed causes repeats of little more than this much work.
BATCH_SECONDS = 1.0


def by_aggregate(rows: Sequence[Row]) -> dict[UUID, deque[Row]]:
    """Return the rows of each aggregate, in their order."""
    queues: dict[UUID, deque[Row]] = defaultdict(deque)
    for row in rows:
        queues[row.aggregate_id].append(row)
    return queues


def allows_next(outcome: Outcome) -> bool:
    """Return whether the next row of the aggregate may be sent in the same batch.

    It may not after a rejected row, which is no dead letter if everybody is answered so.
    """
    return is_processed(outcome)


class Streak:
    """The rows of a batch that were refused in a row: when there are too many, the destination is down.

    Threads may add at the same time. A count that is missed so only lets one more call begin.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._refused = 0
        self._was_unreachable = False

    def add(self, outcomes: Sequence[Outcome]) -> None:
        if any(map(is_taken, outcomes)):
            self._refused, self._was_unreachable = 0, False
        else:
            self._refused += sum(map(is_refused, outcomes))
            self._was_unreachable |= any(isinstance(outcome, Unreachable) for outcome in outcomes)

    @property
    def is_down(self) -> bool:
        """Whether nothing more is to be sent. If the destination never took a row, one that it did not take says it."""
        return self._refused >= REFUSED_IN_A_ROW or (self._was_unreachable and not self._pace.has_taken)
