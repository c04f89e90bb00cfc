"""Reading reservations without changing them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from domain.items import items
from domain.reservations.lifecycle import Status
from domain.reservations.table import Reservation, read, reservations
from domain.runtime.errors import UnknownReservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a list is narrowed to. `since` and `before` bound the time of making, half-open."""

    status: Status | None = None
    item_id: int | None = None
    sku: str | None = None
    guest_id: str | None = None
    source: str | None = None
    since: datetime | None = None
    before: datetime | None = None


def get(session: Session, reservation_id: UUID) -> Reservation:
    """Return a reservation. Raises UnknownReservation."""
    row = session.execute(read.where(reservations.c.id == reservation_id)).one_or_none()
    if row is None:
        raise UnknownReservation(reservation_id)
    return Reservation.of(row)


def find(session: Session, wanted: Filter, *, before_id: UUID | None = None, limit: int) -> Sequence[Reservation]:
    """Return up to `limit` reservations, the newest first, from before the id `before_id`."""
    conditions = [
        (reservations.c.status, wanted.status),
        (reservations.c.item_id, wanted.item_id),
        (items.c.sku, wanted.sku),
        (reservations.c.guest_id, wanted.guest_id),
        (reservations.c.source, wanted.source),
    ]
    statement = read.order_by(reservations.c.id.desc()).limit(limit)
    for column, value in conditions:
        if value is not None:
            statement = statement.where(column == value)
    if wanted.since is not None:
        statement = statement.where(reservations.c.created_at >= wanted.since)
    if wanted.before is not None:
        statement = statement.where(reservations.c.created_at < wanted.before)
    if before_id is not None:
        statement = statement.where(reservations.c.id < before_id)
    return [Reservation.of(row) for row in session.execute(statement)]
