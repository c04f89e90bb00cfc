"""The audit: who changed what, why, and how many rows. Each entry is written in the transaction of the change."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from domain.outbox.table import audit_entries
from domain.runtime.errors import Invalid

#: Characters, as many as the column holds.
WHO_LENGTH = 255

#: Characters: enough for a sentence and the number of a ticket.
WHY_LENGTH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who makes a change, and why. The operation itself adds the action, and which rows it changes."""

    who: str
    why: str

    def __post_init__(self) -> None:
        if not self.why.strip() or len(self.why) > WHY_LENGTH:
            raise Invalid("why", f"say why, in 1 to {WHY_LENGTH} characters; it is kept with what you do")
        if not self.who.strip() or len(self.who) > WHO_LENGTH:
            raise Invalid("who", f"say who, in 1 to {WHO_LENGTH} characters; it is kept with what you do")


def record(session: Session, action: str, selection: Mapping[str, str], entry: AuditEntry, *, rows: int) -> int:
    """Record an action and how many rows it changed. Return the id of the audit entry."""
    values = {"action": action, "who": entry.who, "why": entry.why, "selection": dict(selection), "rows": rows}
    recorded = insert(audit_entries).values(values).returning(audit_entries.c.id)
    entry_id: int = session.execute(recorded).scalar_one()
    return entry_id


def add_rows(session: Session, entry_id: int, rows: int) -> None:
    """Add the rows of a further batch to the audit entry of their operation."""
    counted = update(audit_entries).where(audit_entries.c.id == entry_id)
    session.execute(counted.values(rows=audit_entries.c.rows + rows))
