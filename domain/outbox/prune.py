"""Letting go of what was delivered long ago."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Interval, any_, bindparam, cast, delete, func, select
from sqlalchemy.orm import Session

from domain.outbox.table import outbox

#: Rows deleted in one transaction: a few megabytes of log at the most, written in a fraction of a second.
PRUNE_BATCH = 5_000

#: Before anything was delivered.
BEGINNING = datetime.min.replace(tzinfo=UTC)


def prune(session: Session, *, older_than: timedelta, after: datetime = BEGINNING) -> tuple[int, datetime | None]:
    """Delete up to PRUNE_BATCH rows that were delivered longer ago than that, the oldest first.

    Return how many, and the moment to go on from, or None when no more are that old: from there
    the next batch need not walk over what this one has left in the index. Dead and pending rows stay.
    """
    count, last, _ = session.execute(_PRUNE, {"older_than": older_than, "after": after}).one()
    return count, last if count == PRUNE_BATCH else None


#: When a row came to its end. It stands in an index of its own, so that neither the young rows
#: nor the dead ones, however many, are looked at.
_ended_at = outbox.c.processed_at

# What is being replayed is locked, and left to its new delivery; two that prune at once share the work.
_old = (
    select(outbox.c.id)
    .where(_ended_at >= bindparam("after"), _ended_at < func.now() - cast(bindparam("older_than"), Interval))
    .order_by(_ended_at)
    .limit(PRUNE_BATCH)
    .with_for_update(skip_locked=True)
)
# As an array, so that the rows are always found by their keys: joined, a plan for any
# parameters might read the whole table.
_gone = (
    delete(outbox).where(outbox.c.id == any_(func.array(_old.scalar_subquery()))).returning(_ended_at.label("ended_at"))
).cte("gone")
_PRUNE = select(
    func.count(),
    func.max(_gone.c.ended_at),
    # The commit need not wait for the disk: what a crash brings back is pruned again.
    func.set_config("synchronous_commit", "off", True),
)
