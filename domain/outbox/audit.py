"""What operators did: who, why, and to how much. Written in the transaction of the deed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from domain.errors import Invalid
from domain.outbox.table import operations

#: As long as the column, and as long as anyone's name.
WHO_LENGTH = 255

#: Enough for a sentence and the number of a ticket.
WHY_LENGTH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What is done, by whom, and why. `selection` says to what."""

    action: str
    who: str
    why: str
    selection: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.why.strip() or len(self.why) > WHY_LENGTH:
            raise Invalid("why", f"say why, in 1 to {WHY_LENGTH} characters; it is kept with what you do")
        if not self.who.strip() or len(self.who) > WHO_LENGTH:
            raise Invalid("who", f"say who, in 1 to {WHO_LENGTH} characters; it is kept with what you do")


def note(session: Session, deed: Deed, *, rows: int, number: int | None = None) -> int:
    """Write a deed down with the rows that it changed, or add them to what is noted under a number. Return that."""
    if number is None:
        return _begin(session, deed, rows)
    grown = update(operations).where(operations.c.id == number).values(rows=operations.c.rows + rows)
    session.execute(grown)
    return number


def _begin(session: Session, deed: Deed, rows: int) -> int:
    noted = insert(operations).values(
        action=deed.action, who=deed.who, why=deed.why, selection=dict(deed.selection), rows=rows
    )
    number: int = session.execute(noted.returning(operations.c.id)).scalar_one()
    return number
