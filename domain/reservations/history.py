"""Reading the history of a reservation: one entry for each of its versions."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.reservations.table import history

#: The most entries that are read: more than anybody makes who does not try to.
MOST_ENTRIES = 1_000


class HistoryEntry(NamedTuple):
    """A change of a reservation: of its status, or of other fields if both statuses are the same.

    The first entry, of the making, has no `from_status`.
    """

    from_status: str | None
    to_status: str
    changed_by: str
    reason: str | None
    created_at: datetime


def read(session: Session, reservation_id: UUID) -> Sequence[HistoryEntry]:
    """Return the history of a reservation, the oldest entry first."""
    columns = [history.c[name] for name in HistoryEntry._fields]
    statement = select(*columns).where(history.c.reservation_id == reservation_id).order_by(history.c.id)
    return [HistoryEntry(*row) for row in session.execute(statement.limit(MOST_ENTRIES))]
