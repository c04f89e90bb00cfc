"""Sending rows to a broker that takes many at once: in rounds, one row of each aggregate a round.

A broker may take the second row of an aggregate and not the first, and then nothing can put
them in order again. So a row is sent only when the one before it has been answered for.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from threading import Event
from uuid import UUID

from domain.outbox import Delivered, Held, Outcome, Rejected, Row, Unreachable

#: No round of a batch begins later than this after its first one.
BATCH_SECONDS = 1.0

HELD = Held()


def in_rounds(
    rows: Sequence[Row], send: Callable[[Sequence[Row]], Sequence[Outcome]], stopping: Event
) -> Sequence[Outcome]:
    """Send all rows and return their outcomes, in the order of `rows`.

    `send` gets at most one row of each aggregate and answers for each. What follows a row
    that did not leave is Held, and so is everything not sent yet when the destination turns
    out to be unreachable, or the time of the batch is over.
    """
    outcomes: dict[int, Outcome] = {}
    queues = _by_aggregate(rows)
    ends = time.monotonic() + BATCH_SECONDS
    while queues and not stopping.is_set() and time.monotonic() < ends:
        turn = [queue.popleft() for queue in queues.values()]
        answers = send(turn)
        outcomes |= {row.id: answer for row, answer in zip(turn, answers, strict=True)}
        if any(isinstance(answer, Unreachable) for answer in answers):
            break
        left = {row.aggregate_id for row in turn if _lets_go_on(outcomes[row.id])}
        queues = {aggregate: queue for aggregate, queue in queues.items() if queue and aggregate in left}
    return [outcomes.get(row.id, HELD) for row in rows]


def _by_aggregate(rows: Sequence[Row]) -> dict[UUID, deque[Row]]:
    queues: dict[UUID, deque[Row]] = defaultdict(deque)
    for row in rows:
        queues[row.aggregate_id].append(row)
    return queues


def _lets_go_on(outcome: Outcome) -> bool:
    # A dead row lets its aggregate go on; the gap is counted and shown.
    return isinstance(outcome, Delivered | Rejected)
