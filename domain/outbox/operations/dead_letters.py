"""Dead letters: rows that are not tried any more. They stay until they are replayed or discarded."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from domain.outbox.operations import bulk_change
from domain.outbox.operations.bulk_change import Batch, Changed
from domain.outbox.operations.selection import Among, Selection, error_kind, group_name
from domain.outbox.table import outbox

#: Nobody reads more groups than this: an operator narrows the list by destination or type.
GROUPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Dead letters of one type to one destination with similar errors. `error` has `#` in place of what varies."""

    name: str
    destination: str
    type: str
    error: str
    rows: int
    oldest: datetime
    newest: datetime
    #: The event id of the newest one.
    example: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One dead letter. `headers` and `payload` are JSON text."""

    id: int
    event_id: UUID
    aggregate_id: UUID
    destination: str
    type: str
    group: str
    attempts: int
    last_error: str | None
    created_at: datetime
    dead_at: datetime
    replayed_at: datetime | None
    discarded_at: datetime | None
    headers: str
    payload: str


ALL = Selection(among=Among.DEAD, everything=True)


def grouped(session: Session, selection: Selection = ALL, *, limit: int = GROUPS) -> Sequence[Group]:
    """Return the dead letters in groups of one destination, one type and similar errors, the largest first."""
    newest_first = aggregate_order_by(outbox.c.event_id, outbox.c.dead_at.desc(), outbox.c.id.desc())
    rows = func.count().label("rows")
    groups = (
        select(
            group_name.label("name"),
            outbox.c.destination,
            outbox.c.type,
            error_kind.label("error"),
            rows,
            func.min(outbox.c.dead_at).label("oldest"),
            func.max(outbox.c.dead_at).label("newest"),
            func.array_agg(newest_first)[1].label("example"),
        )
        .where(*selection.conditions())
        .group_by("name", outbox.c.destination, outbox.c.type, "error")
        .order_by(rows.desc(), "name")
        .limit(limit)
    )
    return [Group(**group._mapping) for group in session.execute(groups)]


def find(session: Session, selection: Selection = ALL, *, after: int = 0, limit: int) -> Sequence[Letter]:
    """Return up to `limit` dead letters in order of id, from beyond the id `after`."""
    return _letters(session, [*selection.conditions(), outbox.c.id > after], limit)


def show(session: Session, which: int | UUID) -> Sequence[Letter]:
    """Return the dead letters of an event (a UUID), or of one row (a number), discarded ones included."""
    identity = outbox.c.id if isinstance(which, int) else outbox.c.event_id
    return _letters(session, [identity == which, outbox.c.dead_at.is_not(None)], None)


def _letters(session: Session, conditions: Sequence[ColumnElement[bool]], limit: int | None) -> Sequence[Letter]:
    texts = {"headers", "payload"}
    columns = [
        cast(outbox.c[name], Text).label(name) if name in texts else outbox.c[name]
        for name in Letter.__slots__
        if name != "group"
    ]
    found = select(*columns, group_name.label("group")).where(*conditions).order_by(outbox.c.id).limit(limit)
    return [Letter(**letter._mapping) for letter in session.execute(found)]


def discard(session: Session, batch: Batch) -> Changed:
    """Discard the dead letters of a batch: they can't be replayed any more.

    They can be looked at until they are pruned, as long as delivered rows.
    """
    values: dict[ColumnElement[Any], Any] = {outbox.c.discarded_at: func.now()}
    return bulk_change.apply(session, "discard", batch, values, outbox.c.dead_at.is_not(None))
