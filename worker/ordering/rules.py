"""What keeps the rows of one aggregate in order, whether rows are sent one by one or in batches."""

from collections import defaultdict, deque
from collections.abc import Sequence
from uuid import UUID

from domain.outbox import Declined, Delivered, Obsolete, Outcome, Rejected, Row

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
    """Return whether the next row of the aggregate may be sent.

    It may after a dead letter as well: the gap is counted, and operators see it.
    """
    return isinstance(outcome, Delivered | Declined | Obsolete | Rejected)
