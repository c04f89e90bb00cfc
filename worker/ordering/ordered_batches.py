"""Ordered batches, for brokers that take many messages in one call: at most one row of each aggregate per call.

A broker may take the second row of an aggregate and refuse the first, and nothing could put them in order again.
So a row is sent only after the broker has answered for the row before it.
"""

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

from domain.outbox import NOT_SENT, Failed, Outcome, Rejected, Row
from worker.isolate import isolate_row, isolate_send
from worker.ordering.pace import Pace
from worker.ordering.rules import BATCH_SECONDS, Streak, allows_next, by_aggregate

Entry = TypeVar("Entry")


def deliver_in_batches(
    rows: Sequence[Row], send: Callable[[Sequence[Row]], Sequence[Outcome]], pace: Pace
) -> Sequence[Outcome]:
    """Send all rows and return their outcomes, in the order of `rows`.

    `send` gets at most one row of each aggregate and returns an outcome for each. Rows of an aggregate behind one
    that was not taken are NotSent. So is every row not sent yet when the destination turns out to be down, when the
    time of the batch is over, or when the process stops.
    """
    outcomes: dict[int, Outcome] = {}
    queues = by_aggregate(rows)
    deadline = time.monotonic() + BATCH_SECONDS
    streak = Streak(pace)
    while queues and not streak.is_down and (admitted := pace.admit(len(queues), deadline)):
        heads = [queue.popleft() for queue in islice(queues.values(), admitted)]
        answers = isolate_send(send, heads)
        pace.answered(heads, answers)
        streak.add(answers)
        outcomes.update((row.id, answer) for row, answer in zip(heads, answers, strict=True))
        stopped = {row.aggregate_id for row in heads if not allows_next(outcomes[row.id])}
        queues = {aggregate: queue for aggregate, queue in queues.items() if queue and aggregate not in stopped}
    return [outcomes.get(row.id, NOT_SENT) for row in rows]


def encode(
    rows: Sequence[Row], write: Callable[[Row], Entry | Rejected]
) -> tuple[Sequence[tuple[Row, Entry]], dict[int, Outcome]]:
    """Write each row as the broker wants it. Return what is to be sent, and the outcomes of the other rows by id.

    A row that can't be written fails alone.
    """
    entries: list[tuple[Row, Entry]] = []
    outcomes: dict[int, Outcome] = {}
    for row in rows:
        entry = isolate_row(write, row)
        if isinstance(entry, Rejected | Failed):
            outcomes[row.id] = entry
        else:
            entries.append((row, entry))
    return entries, outcomes
