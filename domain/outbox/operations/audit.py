"""The audit: who changed what, why, and how many rows. Each entry is written in the transaction of the change."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from domain.outbox.table import operations
from domain.runtime.errors import Invalid

#: Characters, as many as the column holds.
WHO_LENGTH = 255

#: Characters: enough for a sentence and the number of a ticket.
WHY_LENGTH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who makes a change, and why. The operation itself adds what it does, and to which rows."""

    who: str
    why: str

    def __post_init__(self) -> None:
        if not self.why.strip() or len(self.why) > WHY_LENGTH:
            raise Invalid("why", f"say why, in 1 to {WHY_LENGTH} characters; it is kept with what you do")
        if not self.who.strip() or len(self.who) > WHO_LENGTH:
            raise Invalid("who", f"say who, in 1 to {WHO_LENGTH} characters; it is kept with what you do")


def record(
    session: Session,
    action: str,
    selection: Mapping[str, str],
    entry: AuditEntry,
    *,
    rows: int,
    number: int | None = None,
) -> int:
    """Record an action and how many rows it changed, or add the rows to the record `number`. Return its number."""
    if number is None:
        recorded = insert(operations).values(
            action=action, who=entry.who, why=entry.why, selection=dict(selection), rows=rows
        )
        begun: int = session.execute(recorded.returning(operations.c.id)).scalar_one()
        return begun
    session.execute(update(operations).where(operations.c.id == number).values(rows=operations.c.rows + rows))
    return number
