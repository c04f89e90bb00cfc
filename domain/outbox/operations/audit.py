"""What operators did: who, why, and to how much. Written in the transaction of the deed."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from domain.outbox.table import operations
from domain.runtime.errors import Invalid

#: As long as the column, and as long as anyone's name.
WHO_LENGTH = 255

#: Enough for a sentence and the number of a ticket.
WHY_LENGTH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Who does something, and why. What is done says itself what it is, and to what."""

    who: str
    why: str

    def __post_init__(self) -> None:
        if not self.why.strip() or len(self.why) > WHY_LENGTH:
            raise Invalid("why", f"say why, in 1 to {WHY_LENGTH} characters; it is kept with what you do")
        if not self.who.strip() or len(self.who) > WHO_LENGTH:
            raise Invalid("who", f"say who, in 1 to {WHO_LENGTH} characters; it is kept with what you do")


def note(
    session: Session, action: str, selection: Mapping[str, str], deed: Deed, *, rows: int, number: int | None = None
) -> int:
    """Write down what was done and to how many rows, or add these to what has that number. Return the number."""
    if number is None:
        noted = insert(operations).values(
            action=action, who=deed.who, why=deed.why, selection=dict(selection), rows=rows
        )
        begun: int = session.execute(noted.returning(operations.c.id)).scalar_one()
        return begun
    session.execute(update(operations).where(operations.c.id == number).values(rows=operations.c.rows + rows))
    return number
