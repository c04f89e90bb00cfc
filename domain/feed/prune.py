"""Pruning: deleting the events that have been in the feed for long."""

from datetime import datetime, timedelta

from sqlalchemy import Interval, any_, bindparam, cast, delete, func, select
from sqlalchemy.orm import Session

from domain.feed.table import feed_events
from domain.runtime.database import READ_IN_INDEX_ORDER
from domain.runtime.pruning import BEGINNING, PRUNE_BATCH, Pruned, pruned


def prune(session: Session, after: datetime = BEGINNING, *, older_than: timedelta) -> Pruned:
    """Delete up to PRUNE_BATCH events that were appended longer ago than that, the first ones. The newest event stays.

    No event is deleted before all earlier ones: a reader who is in between would miss events without noticing. So two
    that prune at the same time wait for each other. The newest event stays because the next position follows from it.
    """
    session.execute(READ_IN_INDEX_ORDER)
    count, last, _ = session.execute(_PRUNE, {"after": after, "older_than": older_than}).one()
    return pruned(count, last)


_appended_at = feed_events.c.appended_at
_newest = select(feed_events.c.position).order_by(feed_events.c.position.desc()).limit(1).scalar_subquery()
_old = (
    select(feed_events.c.position)
    .where(_appended_at >= bindparam("after"))
    .where(_appended_at < func.now() - cast(bindparam("older_than"), Interval))
    .where(feed_events.c.position < _newest)
    .order_by(_appended_at, feed_events.c.position)
    .limit(PRUNE_BATCH)
    .with_for_update()
)
_gone = (
    delete(feed_events)
    # As an array, so that the rows are found by their keys, however many PostgreSQL expects.
    .where(feed_events.c.position == any_(func.array(_old.scalar_subquery())))
    .returning(_appended_at)
    .cte("gone")
)
# The commit need not wait for the disk: events that a crash brings back are pruned again.
_PRUNE = select(
    func.count(), func.max(_gone.c.appended_at), func.set_config("synchronous_commit", "off", True)
).select_from(_gone)
