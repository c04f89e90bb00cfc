"""Selections: which rows an operator wants to look at or change."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Self
from uuid import UUID

from sqlalchemy import ColumnElement, func
from sqlalchemy.orm import Session

from domain.outbox.table import of_aggregate, outbox, pending
from domain.runtime import database
from domain.runtime.errors import Invalid

#: What differs between similar errors: UUIDs, hexadecimal words with a digit in them, numbers.
VARIABLE = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\m(0x)?(?=[a-f]*[0-9])[0-9a-f]{6,}\M|[0-9]+"

#: What errors are grouped by: the error with `#` in place of all that varies.
error_kind: ColumnElement[str] = func.regexp_replace(func.coalesce(outbox.c.last_error, ""), VARIABLE, "#", "gi")

#: The name of a group: what its rows have in common, as short as an operator can type it.
group_name: ColumnElement[str] = func.left(
    func.encode(
        func.sha256(
            func.convert_to(func.concat_ws("\x1f", outbox.c.destination, outbox.c.type, error_kind), "UTF8"),
        ),
        "hex",
    ),
    8,
)


class Among(StrEnum):
    """The rows that are selected from. A worker may be delivering those that are pending (see `burial`)."""

    DEAD = "dead"
    DELIVERED = "delivered"
    PENDING = "pending"


#: Since when a row is among them, and whether it is.
_AMONG: Mapping[Among, tuple[ColumnElement[datetime], ColumnElement[bool]]] = {
    Among.DEAD: (outbox.c.dead_at, outbox.c.dead_at.is_not(None)),
    Among.DELIVERED: (outbox.c.processed_at, outbox.c.processed_at.is_not(None)),
    Among.PENDING: (outbox.c.created_at, pending),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Rows that match every given field. A selection without any field must say `everything`.

    `type` may contain `*` for any characters. `since` (inclusive) and `before` (exclusive) bound the time at which
    the row was delivered or became a dead letter, or if it is pending, was recorded. `error` is a part of the last
    error, `group` the name of a group of dead letters.
    """

    among: Among
    row_id: int | None = None
    event_id: UUID | None = None
    reservation_id: UUID | None = None
    type: str | None = None
    destination: str | None = None
    since: datetime | None = None
    before: datetime | None = None
    error: str | None = None
    group: str | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        if not self._given() and not self.everything:
            raise Invalid("selection", "it has no filter; give at least one, or ask for all rows")
        for name, value in self._given().items():
            if value == "":
                raise Invalid(name, "it is empty; give a value, or leave it out")
        for name, moment in (("since", self.since), ("before", self.before)):
            if moment and moment.tzinfo is None:
                raise Invalid(name, "it needs a UTC offset, such as 2030-01-31T12:00:00Z")
        if self.since and self.before and self.since >= self.before:
            raise Invalid("before", "it must be later than since")
        if self.group is not None and not re.fullmatch("[0-9a-f]{8}", self.group):
            raise Invalid("group", "it has 8 hexadecimal digits, as the list of dead letters shows it")

    def facts(self) -> dict[str, str]:
        """Return the selection as the audit records it."""
        return {"among": self.among.value} | {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in self._given().items()
        }

    def as_of_now(self, session: Session) -> Self:
        """Return the same selection without rows that are delivered or become dead letters from now on.

        Otherwise a replay in several batches would select its own rows again. Raises Invalid.
        """
        now = database.now(session)
        if self.since and self.since >= now:
            raise Invalid("since", "it is in the future")
        return replace(self, before=min(self.before or now, now))

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions that a selected row of the outbox meets."""
        moment, is_among = _AMONG[self.among]
        conditions = [is_among, outbox.c.discarded_at.is_(None)]
        if self.type is not None:
            conditions.append(outbox.c.type.like(database.like(self.type), escape="\\"))
        if self.since is not None:
            conditions.append(moment >= self.since)
        if self.before is not None:
            conditions.append(moment < self.before)
        if self.error is not None:
            conditions.append(func.strpos(outbox.c.last_error, self.error) > 0)
        if self.group is not None:
            conditions.append(group_name == self.group)
        return conditions + self._identities()

    def _given(self) -> dict[str, object]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value for name, value in values.items() if value is not None and name not in {"among", "everything"}
        }

    def _identities(self) -> list[ColumnElement[bool]]:
        asked = {
            outbox.c.id: self.row_id,
            outbox.c.event_id: self.event_id,
            outbox.c.destination: self.destination,
        }
        identities = [column == value for column, value in asked.items() if value is not None]
        return identities if self.reservation_id is None else [*identities, of_aggregate(self.reservation_id)]
