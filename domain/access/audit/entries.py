"""Entries of the audit: recording them, each in the transaction of what it tells of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import insert
from sqlalchemy.orm import Session

from domain.access.audit.table import audit_entries
from domain.runtime.errors import Invalid

#: Characters, as many as the column holds.
WHO_LENGTH = 255

#: Characters: enough for a sentence and the number of a ticket.
WHY_LENGTH = 1_000

WRONG_WHY = f"say why, in 1 to {WHY_LENGTH} characters; it is kept with what you do"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who makes a change, and why. The operation itself adds the action, and which rows it changes."""

    who: str
    why: str

    def __post_init__(self) -> None:
        if not self.why.strip():
            raise Invalid("why", WRONG_WHY)
        _require_fitting(self.who, self.why)


def _require_fitting(who: str, why: str) -> None:
    if len(why) > WHY_LENGTH:
        raise Invalid("why", WRONG_WHY)
    if not who.strip() or len(who) > WHO_LENGTH:
        raise Invalid("who", f"say who, in 1 to {WHO_LENGTH} characters; it is kept with what you do")


def record(
    session: Session,
    action: str,
    *,
    who: str,
    subject: str | None = None,
    why: str | None = None,
    rows: int = 0,
    selection: Mapping[str, str] | None = None,
    operation_id: int | None = None,
) -> int:
    """Record what somebody does, in the transaction in which it is done. Return the id of the entry.

    `subject` is the id of what it is done to, such as `item:17`; neither it nor `selection` has personal data.
    `operation_id` is the first entry of the operation if this one is of a further batch: readers add up the rows.
    Raises Invalid if `who` or `why` is too long.
    """
    _require_fitting(who, why or "")
    values = {
        "action": action,
        "who": who,
        "why": why or "",
        "selection": dict(selection or {}),
        "rows": rows,
        "subject": subject,
        "operation_id": operation_id,
    }
    entry_id: int = session.execute(insert(audit_entries).values(values).returning(audit_entries.c.id)).scalar_one()
    return entry_id


@dataclass(slots=True, kw_only=True)
class Operation:
    """An operation of many batches: each has an entry in its transaction, with the id of the first one."""

    action: str
    who: str
    why: str | None = None
    subject: str | None = None
    _first: int | None = field(default=None, init=False)

    def record(self, session: Session, rows: int) -> None:
        """Record a batch. If its transaction fails, the operation has ended."""
        entry_id = record(
            session,
            self.action,
            who=self.who,
            why=self.why,
            subject=self.subject,
            rows=rows,
            operation_id=self._first,
        )
        self._first = self._first or entry_id
