"""Changing the rows of a selection, batch by batch. Each batch is recorded in the audit in its own transaction.

A batch has whole reservations: all rows of the selection that one reservation has for one destination. If a replay had
the first of them in one batch and the others in a later one, a new event could be delivered between them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, any_, cast, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain.access import audit
from domain.access.audit import AuditEntry
from domain.outbox.operations.selection import Selection
from domain.outbox.table import outbox

#: Rows changed in one transaction, unless one reservation alone has more.
BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Up to `limit` rows of a selection that are to be changed, of the reservations whose first row is beyond `after`.

    `operation_id` is the audit entry of the first batch of the same operation.
    """

    selection: Selection
    entry: AuditEntry
    after: int = 0
    limit: int = BATCH
    operation_id: int | None = None


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
    matching = (*batch.selection.conditions(), *conditions, outbox.c.id > batch.after)
    reservations = _first_reservations(session, matching, batch.limit)
    taken = _within(batch.limit, reservations)
    if not taken:
        return Changed(rows=0, following=None)
    rows = _change(session, [row_id for ids in taken for row_id in ids], matching, values)
    operation_id = _record(session, action, batch, rows) if rows else batch.operation_id
    is_last = len(taken) == len(reservations) and sum(map(len, taken)) < batch.limit
    following = None if is_last else replace(batch, after=taken[-1][0], operation_id=operation_id)
    return Changed(rows=rows, following=following)


def _first_reservations(
    session: Session, matching: Sequence[ColumnElement[bool]], limit: int
) -> Sequence[Sequence[int]]:
    """Return the ids of all matching rows of the reservations that have one of the first `limit` rows.

    The rows of one reservation for one destination are together. They, and the first rows of all, are in order of id.
    """
    key = outbox.c.destination, outbox.c.aggregate_id
    first = select(*key).where(*matching).order_by(outbox.c.id).limit(limit).cte("first")
    is_theirs = tuple_(*key).in_(select(*first.c))
    by_reservation: dict[tuple[str, UUID], list[int]] = {}
    rows = session.execute(select(*key, outbox.c.id).where(*matching, is_theirs).order_by(outbox.c.id))
    for destination, aggregate_id, row_id in rows:
        by_reservation.setdefault((destination, aggregate_id), []).append(row_id)
    return list(by_reservation.values())


def _within(limit: int, reservations: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
    """Return the first reservations that have no more rows together than the limit, or one that alone has more."""
    sums = accumulate(map(len, reservations))
    return reservations[: max(1, sum(rows <= limit for rows in sums))]


def _change(
    session: Session,
    ids: Sequence[int],
    matching: Sequence[ColumnElement[bool]],
    values: Mapping[ColumnElement[Any], Any],
) -> int:
    """Give rows new values. Those that another transaction deletes, replays or discards at this moment are skipped."""
    is_given = outbox.c.id == any_(cast(ids, ARRAY(BigInteger)))
    free = select(outbox.c.id).where(*matching, is_given).order_by(outbox.c.id).with_for_update(skip_locked=True)
    chosen = free.cte("chosen")
    changed = update(outbox).where(outbox.c.id == chosen.c.id).values(dict(values)).returning(outbox.c.id)
    return len(session.execute(changed).all())


def _record(session: Session, action: str, batch: Batch, rows: int) -> int:
    """Record a batch in the audit. Return the id of the entry of the first batch, which the later ones refer to."""
    entry_id = audit.record(
        session,
        action,
        who=batch.entry.who,
        why=batch.entry.why,
        selection=batch.selection.facts(),
        rows=rows,
        operation_id=batch.operation_id,
    )
    return batch.operation_id or entry_id
