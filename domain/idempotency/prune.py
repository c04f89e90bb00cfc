"""Pruning: deleting the answers that no client may ask for again."""

from datetime import datetime

from sqlalchemy import ColumnElement, Interval, any_, bindparam, cast, delete, func, literal_column, select
from sqlalchemy.orm import Session

from domain.idempotency.table import KEPT_FOR, requests
from domain.runtime.pruning import BEGINNING, PRUNE_BATCH, Pruned, pruned


def prune(session: Session, after: datetime = BEGINNING) -> Pruned:
    """Forget up to PRUNE_BATCH keys that are older than KEPT_FOR, the oldest first."""
    count, last, _ = session.execute(_PRUNE, {"after": after}).one()
    return pruned(count, last)


_place: ColumnElement[str] = literal_column("ctid")
_old = (
    select(_place)
    .select_from(requests)
    .where(requests.c.created_at >= bindparam("after"), requests.c.created_at < func.now() - cast(KEPT_FOR, Interval))
    .order_by(requests.c.created_at)
    .limit(PRUNE_BATCH)
    .with_for_update(skip_locked=True)
)
# Rows are found by their place in the table: joined by its primary key of three columns, a plan might read the
# whole table.
_deleted = (
    delete(requests)
    .where(_place == any_(func.array(_old.scalar_subquery())))
    .returning(requests.c.created_at)
    .cte("deleted")
)
_PRUNE = select(
    func.count(),
    func.max(_deleted.c.created_at),
    # The commit need not wait for the disk: keys that a crash brings back are pruned again.
    func.set_config("synchronous_commit", "off", True),
).select_from(_deleted)
