"""Letting go of what was delivered long ago."""

from datetime import timedelta

from sqlalchemy import BigInteger, any_, bindparam, cast, delete, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain.outbox.table import outbox

#: Rows looked at in one transaction: a few hundred milliseconds, and no writer waits for it.
PRUNE_BATCH = 5_000


def prune(session: Session, *, older_than: timedelta, after: int = 0) -> tuple[int, int | None]:
    """Delete what was delivered longer ago than that among the next PRUNE_BATCH rows beyond the id `after`.

    Return how many, and the id to go on from, or None when the rest is too young.
    Dead and pending rows stay.
    """
    limit = select(func.now() - older_than).scalar_subquery()
    window = (
        select(outbox.c.id, outbox.c.processed_at < limit, outbox.c.created_at < limit)
        .where(outbox.c.id > after)
        .order_by(outbox.c.id)
        .limit(PRUNE_BATCH)
    )
    rows = session.execute(window).all()
    session.execute(_DELETE, {"ids": [row_id for row_id, is_old, _ in rows if is_old]})
    more = len(rows) == PRUNE_BATCH and rows[-1][2]
    return sum(bool(is_old) for _, is_old, _ in rows), rows[-1][0] if more else None


_DELETE = delete(outbox).where(
    outbox.c.id == any_(cast(bindparam("ids"), ARRAY(BigInteger))), outbox.c.processed_at.is_not(None)
)
