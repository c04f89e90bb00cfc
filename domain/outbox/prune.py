"""Pruning: deleting rows that were delivered or discarded long ago."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Column, Interval, Select, any_, bindparam, cast, delete, func, select
from sqlalchemy.orm import Session

from domain.outbox.table import outbox

#: Rows deleted in one transaction: a few megabytes of log at the most, written in a fraction of a second.
PRUNE_BATCH = 5_000

#: Earlier than any delivery.
BEGINNING = datetime.min.replace(tzinfo=UTC)


def prune(session: Session, *, older_than: timedelta, after: datetime = BEGINNING) -> tuple[int, datetime | None]:
    """Delete up to PRUNE_BATCH rows that were delivered longer ago than that, and as many discarded ones.

    Return how many, and the moment at which the next batch begins, or None when no more rows are that old. Beginning
    there, the next batch does not walk over the index entries of the rows that this one has deleted. Pending rows
    and other dead letters stay.
    """
    delivered, last, _ = session.execute(_DELIVERED, {"older_than": older_than, "after": after}).one()
    discarded, _, _ = session.execute(_DISCARDED, {"older_than": older_than, "after": BEGINNING}).one()
    is_all = max(delivered, discarded) < PRUNE_BATCH
    return delivered + discarded, None if is_all else last or after


def _pruning(ended_at: Column[datetime]) -> Select[int, datetime, str]:
    """Return the statement that deletes by the moment of that column, which has an index of its own."""
    # Rows that are being replayed are locked, and left alone; two that prune at the same time share the work.
    old = (
        select(outbox.c.id)
        .where(ended_at >= bindparam("after"), ended_at < func.now() - cast(bindparam("older_than"), Interval))
        .order_by(ended_at)
        .limit(PRUNE_BATCH)
        .with_for_update(skip_locked=True)
    )
    # As an array, so that the rows are always found by their keys: joined, a plan for any
    # parameters might read the whole table.
    by_id = outbox.c.id == any_(func.array(old.scalar_subquery()))
    gone = delete(outbox).where(by_id).returning(ended_at.label("ended_at")).cte("gone")
    return select(
        func.count(),
        func.max(gone.c.ended_at),
        # The commit need not wait for the disk: rows that a crash brings back are pruned again.
        func.set_config("synchronous_commit", "off", True),
    ).select_from(gone)


_DELIVERED = _pruning(outbox.c.processed_at)
_DISCARDED = _pruning(outbox.c.discarded_at)
