"""Appending events to the feed, in the transaction that settles their outbox rows."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, func, insert, literal, select
from sqlalchemy.orm import Session

from domain.feed.table import feed_events
from domain.outbox.table import outbox
from domain.runtime.database import READ_IN_INDEX_ORDER, is_given

#: The key of the advisory lock that lets one transaction append at a time: "feed" in ASCII.
APPEND_LOCK = 0x66656564


def append(session: Session, row_ids: Sequence[int]) -> int:
    """Append the events of these outbox rows, in order of id, unless they are in the feed. Return how many are new.

    The lock is held until the commit, so a position is given only when all lower ones are committed. Whoever has read
    up to a position has therefore missed nothing, and never will. The rest of the transaction reads by indexes.
    """
    session.execute(_LOCK)
    return len(session.execute(_APPEND, {"ids": list(row_ids)}).all())


# A statement of its own: the next one sees what had been committed when the lock was taken.
_LOCK = READ_IN_INDEX_ORDER.add_columns(func.pg_advisory_xact_lock(literal(APPEND_LOCK, BigInteger)))

_last = select(feed_events).order_by(feed_events.c.position.desc()).limit(1).subquery("last")
_last_position = func.coalesce(select(_last.c.position).scalar_subquery(), 0)
_now = select(func.clock_timestamp()).scalar_subquery()
_same = feed_events.alias("same")
# Not a join, which PostgreSQL might do by reading the whole feed.
_position_of_same = select(_same.c.position).where(_same.c.event_id == outbox.c.event_id).limit(1).correlate(outbox)
_COLUMNS = ("event_id", "type", "aggregate_id", "payload", "created_at")
_APPEND = (
    insert(feed_events)
    .from_select(
        ["position", *_COLUMNS, "appended_at"],
        select(
            _last_position + func.row_number().over(order_by=outbox.c.id),
            *(outbox.c[name] for name in _COLUMNS),
            # The clock of a server may be set back.
            func.greatest(_now, select(_last.c.appended_at).scalar_subquery()),
        )
        .where(is_given(outbox.c.id))
        .where(_position_of_same.scalar_subquery().is_(None)),
    )
    .returning(feed_events.c.position)
)
