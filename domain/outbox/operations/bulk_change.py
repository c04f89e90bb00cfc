"""Changing the rows of a selection, batch by batch. Each batch is recorded in the audit in its own transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from domain.outbox.operations import audit
from domain.outbox.operations.audit import AuditEntry
from domain.outbox.operations.selection import Selection
from domain.outbox.table import outbox

#: Rows changed in one transaction.
BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Up to `limit` rows of a selection that are to be changed: the first ones beyond the id `after`.

    `audit_entry_id` is the entry that earlier batches of the same operation were recorded in.
    """

    selection: Selection
    entry: AuditEntry
    after: int = 0
    limit: int = BATCH
    audit_entry_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """How many rows a batch has changed, and the next batch, or None when there are no more."""

    rows: int
    following: Batch | None


def apply(
    session: Session,
    action: str,
    batch: Batch,
    values: Mapping[ColumnElement[Any], Any],
    *conditions: ColumnElement[bool],
) -> Changed:
    """Give those rows of a batch that fulfil the conditions new values, and record that in the audit."""
    # Rows that another transaction deletes, replays or discards at this moment are skipped.
    chosen = (
        select(outbox.c.id)
        .where(*batch.selection.conditions(), *conditions, outbox.c.id > batch.after)
        .order_by(outbox.c.id)
        .limit(batch.limit)
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    changed = update(outbox).where(outbox.c.id == chosen.c.id).values(dict(values)).returning(outbox.c.id)
    ids = session.execute(changed).scalars().all()
    if not ids:
        return Changed(rows=0, following=None)
    following = replace(batch, after=max(ids), audit_entry_id=_record(session, action, batch, rows=len(ids)))
    return Changed(rows=len(ids), following=following if len(ids) == batch.limit else None)


def _record(session: Session, action: str, batch: Batch, rows: int) -> int:
    """Record a batch in the audit entry of its operation, which the first batch makes. Return the id of that entry."""
    if batch.audit_entry_id is None:
        return audit.record(session, action, batch.selection.facts(), batch.entry, rows=rows)
    audit.add_rows(session, batch.audit_entry_id, rows)
    return batch.audit_entry_id
