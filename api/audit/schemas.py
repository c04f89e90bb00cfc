"""The shapes of the audit, as clients see them."""

from datetime import datetime
from typing import Self

import msgspec

from domain.access.audit import RecordedEntry


class EntryView(msgspec.Struct):
    """Who did what, and when. `subject` is what it was done to, and `why` the reason, if one was asked for.

    An operation of many batches has an entry for each: `operation_id` is the first of them, and null in that one. Add
    up their `rows`. `unreadable` is null, unless somebody has written the entry into the database past Holdfast in such
    a way that not all of it can be shown: then it says what. Only such an entry may have no time.
    """

    id: int
    happened_at: datetime | None
    who: str
    action: str
    subject: str | None
    why: str | None
    selection: dict[str, str]
    rows: int
    operation_id: int | None
    unreadable: str | None

    @classmethod
    def of(cls, one: RecordedEntry) -> Self:
        return cls(
            id=one.id,
            happened_at=one.happened_at,
            who=one.who,
            action=one.action,
            subject=one.subject,
            why=one.why or None,
            selection=dict(one.selection),
            rows=one.rows,
            operation_id=one.operation_id,
            unreadable=one.unreadable,
        )


class EntryPage(msgspec.Struct):
    """Entries, the newest first. If there is a `next_cursor`, there may be more: send it back as `cursor`."""

    entries: list[EntryView]
    next_cursor: str | None
