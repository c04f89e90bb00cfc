"""Finding entries of the audit, those included that somebody has written into the table past Holdfast."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Text, and_, case, cast, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from domain.access.audit.entries import WHY_LENGTH
from domain.access.audit.table import audit_entries

#: PostgreSQL has earlier and later times, but Python has none; a day at each end is for the time zones.
_EARLIEST, _LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)

#: The selection of an entry, in bytes of JSON. That of Holdfast has the names of all destinations at most.
SELECTION_BYTES = 1_000_000

UNREADABLE = (
    "This entry can't be read in full: {}. Holdfast writes no such entry: somebody has written it into the database."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEntry:
    """An entry as it is in the audit. `why` is empty if no reason was asked for.

    `unreadable` says what of it can't be shown, and is None for every entry that Holdfast has written. The time is None
    if it can't be shown.
    """

    id: int
    action: str
    who: str
    why: str
    selection: Mapping[str, str]
    rows: int
    happened_at: datetime | None
    subject: str | None
    operation_id: int | None
    unreadable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries are found: those that fulfil all of these."""

    who: str | None = None
    action: str | None = None
    subject: str | None = None
    since: datetime | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """Yield the conditions that an entry has to fulfil."""
        for name in ("who", "action", "subject"):
            if (value := getattr(self, name)) is not None:
                yield audit_entries.c[name] == value
        if self.since is not None:
            yield audit_entries.c.happened_at >= self.since


def find(session: Session, wanted: Filter, *, limit: int, before: int | None = None) -> Sequence[RecordedEntry]:
    """Return entries, the newest first; those below the id `before`, if it is given."""
    found = _SHOWN.where(*wanted.conditions()).order_by(audit_entries.c.id.desc()).limit(limit)
    if before is not None:
        found = found.where(audit_entries.c.id < before)
    return [_read(row) for row in session.execute(found)]


def readable(instant: ColumnElement[datetime]) -> ColumnElement[datetime | None]:
    """Return an instant, or null if Python has no such time."""
    return case((instant.between(_EARLIEST, _LATEST), instant))


def _read(row: Row[Any]) -> RecordedEntry:
    values = {name: row._mapping[name] for name in ("id", "action", "who", "why", "rows", "subject", "operation_id")}
    return RecordedEntry(
        **values, happened_at=row.happened_at, selection=row.selection or {}, unreadable=_describe_unreadable(row)
    )


def _describe_unreadable(row: Row[Any]) -> str | None:
    faults = []
    if row.happened_at is None:
        faults.append(f"its time is {row.written_time}")
    if row.selection is None:
        faults.append(f"its selection is no JSON object of at most {SELECTION_BYTES:,} bytes")
    if row.why_length > WHY_LENGTH:
        faults.append(f"its reason has {row.why_length:,} characters, of which the first {WHY_LENGTH:,} are shown")
    return UNREADABLE.format(", and ".join(faults)) if faults else None


# PostgreSQL makes text of what a member has: so nothing in it is too deep, or too large a number, for whoever reads it.
_entry = audit_entries.c
_members = func.jsonb_each_text(_entry.selection).table_valued("key", "value")
_object = func.jsonb_object_agg(_members.c.key, func.coalesce(_members.c.value, "null"))
_texts = select(func.coalesce(_object, func.jsonb_build_object(), type_=JSONB)).select_from(_members)
_is_readable = and_(
    func.jsonb_typeof(_entry.selection) == "object",
    func.octet_length(cast(_entry.selection, Text)) <= SELECTION_BYTES,
)
_SHOWN: Select[Any] = select(
    *(_entry[name] for name in ("id", "action", "who", "rows", "subject", "operation_id")),
    func.left(_entry.why, WHY_LENGTH).label("why"),
    func.length(_entry.why).label("why_length"),
    readable(_entry.happened_at).label("happened_at"),
    cast(_entry.happened_at, Text).label("written_time"),
    case((_is_readable, _texts.scalar_subquery())).label("selection"),
)
