"""Sending rows to a broker that takes many at once: in rounds, one row of each aggregate a round.

A broker may take the second row of an aggregate and not the first, and then nothing can put
them in order again. So a row is sent only when the one before it has been answered for.
"""

import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import TypeVar

import structlog

from domain.outbox import NOT_SENT, Failed, Outcome, Rejected, Row, Unreachable
from worker.relay.ordering import BATCH_SECONDS, allows_next, by_aggregate, isolated

Entry = TypeVar("Entry")

log = structlog.get_logger()


def in_ordered_batches(
    rows: Sequence[Row], send: Callable[[Sequence[Row]], Sequence[Outcome]], stopping: Event
) -> Sequence[Outcome]:
    """Send all rows and return their outcomes, in the order of `rows`.

    `send` gets at most one row of each aggregate and answers for each. What follows a row
    that did not leave is NotSent, and so is everything not sent yet when the destination turns
    out to be unreachable, or the time of the batch is over.
    """
    outcomes: dict[int, Outcome] = {}
    queues = by_aggregate(rows)
    ends = time.monotonic() + BATCH_SECONDS
    while queues and not stopping.is_set() and time.monotonic() < ends:
        turn = [queue.popleft() for queue in queues.values()]
        answers = _sent(send, turn)
        outcomes.update((row.id, answer) for row, answer in zip(turn, answers, strict=True))
        if any(isinstance(answer, Unreachable) for answer in answers):
            break
        left = {row.aggregate_id for row in turn if allows_next(outcomes[row.id])}
        queues = {aggregate: queue for aggregate, queue in queues.items() if queue and aggregate in left}
    return [outcomes.get(row.id, NOT_SENT) for row in rows]


def written(
    rows: Sequence[Row], write: Callable[[Row], Entry | Rejected]
) -> tuple[Sequence[tuple[Row, Entry]], dict[int, Outcome]]:
    """Write each row down as the broker wants it. Return what is to be sent, and the outcomes of the others by id.

    One that can't be written fails alone.
    """
    entries: list[tuple[Row, Entry]] = []
    outcomes: dict[int, Outcome] = {}
    for row in rows:
        entry = isolated(write, row)
        if isinstance(entry, Rejected | Failed):
            outcomes[row.id] = entry
        else:
            entries.append((row, entry))
    return entries, outcomes


def _sent(send: Callable[[Sequence[Row]], Sequence[Outcome]], turn: Sequence[Row]) -> Sequence[Outcome]:
    """Take what a broker's library did not foresee for an outage: nobody can tell which row is to blame, if any."""
    try:
        return send(turn)
    except Exception as error:
        log.exception("round.broke", rows=len(turn))
        return [Unreachable(f"{type(error).__name__}: {error}")] * len(turn)
