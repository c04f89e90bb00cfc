"""What tests of operating the outbox need: dead letters, delivered rows, a backlog, and the audit."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Row as Record
from sqlalchemy import func, select, text, update

from domain.access.audit import AuditEntry, audit_entries
from domain.outbox.table import outbox
from tests.support.builders import Db

ZERO = timedelta(0)

#: For tests in which it does not matter who makes a change, and why.
ENTRY = AuditEntry(who="ann", why="stocktaking")


def mark_dead(db: Db, *ids: int, of: str = "503 Service Unavailable", ago: timedelta = ZERO) -> None:
    """Mark these rows as dead letters: they died `ago` before now, after 12 attempts, with the error `of`."""
    values = {"dead_at": func.now() - ago, "attempts": 12, "last_error": of, "available_at": None}
    with db.begin() as session:
        session.execute(update(outbox).where(outbox.c.id.in_(ids)).values(values))


def mark_delivered(db: Db, *ids: int, ago: timedelta = ZERO) -> None:
    """Mark these rows as delivered, `ago` before now."""
    with db.begin() as session:
        session.execute(update(outbox).where(outbox.c.id.in_(ids)).values(processed_at=func.now() - ago))


def a_backlog(db: Db, count: int, *, to: str = "shop") -> None:
    """Insert `count` ready rows for a destination, each with an aggregate of its own."""
    rows = """
        INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload)
        SELECT gen_random_uuid(), :to, n % 32, gen_random_uuid(), 'booking.created', '{}'
        FROM generate_series(1, :count) AS n
    """
    with db.begin() as session:
        session.execute(text(rows), {"to": to, "count": count})


def audited(db: Db) -> Sequence[Record[Any]]:
    """Return the first audit entry of each operation, in order, with the rows of all its entries."""
    entry, first = audit_entries.c, func.coalesce(audit_entries.c.operation_id, audit_entries.c.id)
    rows = func.sum(entry.rows).over(partition_by=first).label("rows")
    others = [column for column in entry if column.name != "rows"]
    found = select(*others, rows).order_by(entry.id).subquery()
    with db.begin() as session:
        return session.execute(select(found).where(found.c.operation_id.is_(None)).order_by(found.c.id)).all()
