"""Pruning: deleting, batch by batch, rows that have been kept long enough. Pure.

Every kind of rows that is pruned has a function `Prune` beside its table, and is listed in `worker.maintenance`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy.orm import Session

#: Rows deleted in one transaction: a few megabytes of log at the most, written in a fraction of a second.
PRUNE_BATCH = 5_000

#: Earlier than any row.
BEGINNING = datetime.min.replace(tzinfo=UTC)


class Pruned(NamedTuple):
    """How many rows a batch has deleted, and the moment at which the next batch begins, or None if that was all.

    Beginning there, the next batch does not walk over the index entries of the rows that this one has deleted.
    """

    deleted: int
    next_after: datetime | None


#: Deletes up to PRUNE_BATCH of the rows that ended at that moment or later and are old enough, the oldest first.
Prune = Callable[[Session, datetime], Pruned]


def pruned(count: int, last: datetime | None) -> Pruned:
    """Return what a batch has done that deleted so many rows, the last of which ended at the moment `last`."""
    return Pruned(count, last if count == PRUNE_BATCH else None)
