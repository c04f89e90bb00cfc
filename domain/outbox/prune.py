"""Pruning: deleting rows that were delivered or discarded long ago."""

from datetime import datetime, timedelta

from sqlalchemy import Column, Interval, Select, any_, bindparam, cast, delete, func, select
from sqlalchemy.orm import Session

from domain.outbox.table import outbox
from domain.runtime.pruning import BEGINNING, PRUNE_BATCH, Pruned, pruned


def prune_delivered(session: Session, after: datetime = BEGINNING, *, older_than: timedelta) -> Pruned:
    """Delete up to PRUNE_BATCH rows that were delivered longer ago than that. Pending rows stay."""
    return _prune(session, _DELIVERED, after, older_than)


def prune_discarded(session: Session, after: datetime = BEGINNING, *, older_than: timedelta) -> Pruned:
    """Delete up to PRUNE_BATCH dead letters that were discarded longer ago than that. Other dead letters stay."""
    return _prune(session, _DISCARDED, after, older_than)


def _prune(session: Session, statement: Select[int, datetime, str], after: datetime, older_than: timedelta) -> Pruned:
    count, last, _ = session.execute(statement, {"after": after, "older_than": older_than}).one()
    return pruned(count, last)


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
