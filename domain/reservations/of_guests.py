"""The reservations of guests: by who the guest is, or by the account."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, false, or_, select, union_all
from sqlalchemy.orm import Session

from domain.access import EVERYTHING, Reach
from domain.privacy.table import guests, is_known
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations
from domain.runtime.database import READ_IN_INDEX_ORDER
from domain.runtime.identity import HIGHEST_ID

#: Conditions of which a guest fulfils one at most. An index has what each of them selects in order of reservation.
Conditions = Sequence[ColumnElement[bool]]


def find(
    session: Session, wanted: Conditions, *, before: UUID = HIGHEST_ID, limit: int, reach: Reach = EVERYTHING
) -> Sequence[UUID]:
    """Return the ids of reservations within reach whose guests are wanted, the newest first, from before an id.

    Guests who were forgotten are never found. For the rest of the transaction, PostgreSQL reads by indexes only.
    """
    session.execute(READ_IN_INDEX_ORDER)
    newest = [_newest(one, before, limit, reach).subquery() for one in wanted]
    found = union_all(*(select(one.c.reservation_id) for one in newest))
    return session.execute(found.order_by(found.selected_columns.reservation_id.desc()).limit(limit)).scalars().all()


def _newest(wanted: ColumnElement[bool], before: UUID, limit: int, reach: Reach) -> Select[tuple[UUID]]:
    # Both ids are compared, because PostgreSQL does not conclude from one what the other one is below.
    found = (
        select(guests.c.reservation_id)
        .join_from(guests, reservations)
        .where(wanted, is_known, guests.c.reservation_id < before, reservations.c.id < before)
        .order_by(guests.c.reservation_id.desc())
        .limit(limit)
    )
    if reach.is_everything:
        return found
    return found.where(or_(*(reservations.c[kind] == owner for kind, owner in reach.owners), false()))


def of_account(guest_id: str) -> Conditions:
    """Return the conditions that a reservation is for this account."""
    return [and_(reservations.c.guest_id == guest_id, reservations.c.status == status) for status in Status]


def of_reservation(reservation_id: UUID) -> Conditions:
    """Return the condition that a guest is that of this reservation."""
    return [guests.c.reservation_id == reservation_id]
