"""What holds for every batch of rows, whether they are sent one by one (`calls`) or together (`rounds`)."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import structlog

from domain.outbox import Delivered, Failed, Obsolete, Outcome, Refused, Rejected, Row

#: No call of a batch, and no round of one to a broker, is begun later than this after the first one, so that
#: what has been delivered is soon settled: a kill repeats little more than this much work.
BATCH_SECONDS = 1.0

Result = TypeVar("Result")

log = structlog.get_logger()


def by_aggregate(rows: Sequence[Row]) -> dict[UUID, deque[Row]]:
    """Return the rows of each aggregate, in their order."""
    queues: dict[UUID, deque[Row]] = defaultdict(deque)
    for row in rows:
        queues[row.aggregate_id].append(row)
    return queues


def isolated(step: Callable[[Row], Result], row: Row) -> Result | Failed:
    """Let a poisonous row fail alone: whatever it breaks, its neighbours go on."""
    try:
        return step(row)
    except Exception as error:
        log.exception("delivery.broke", row=row.id)
        return Failed(f"{type(error).__name__}: {error}")


def allows_next(outcome: Outcome) -> bool:
    """Tell whether the next row of the aggregate may be sent. After a dead one it may: the gap is counted and shown."""
    return isinstance(outcome, Delivered | Refused | Obsolete | Rejected)
