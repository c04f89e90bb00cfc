"""Deleting the answers that no client may ask for again."""

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from domain.idempotency.table import KEPT_FOR, requests

#: Rows deleted in one transaction.
PRUNE_BATCH = 5_000


def prune(session: Session) -> int:
    """Forget up to PRUNE_BATCH keys that are older than KEPT_FOR. Return how many."""
    old = (
        select(requests.c.client_id, requests.c.operation, requests.c.idempotency_key)
        .where(requests.c.created_at < func.now() - KEPT_FOR)
        .order_by(requests.c.created_at)
        .limit(PRUNE_BATCH)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    same = [requests.c[name] == old.c[name] for name in ("client_id", "operation", "idempotency_key")]
    return len(session.execute(delete(requests).where(*same).returning(requests.c.idempotency_key)).all())
