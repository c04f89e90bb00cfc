"""Forgetting guests: the data key, all that it encrypts, and the hashes are destroyed. The reservation stays whole."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, func, null, or_, select, update
from sqlalchemy.orm import Session

from domain.privacy.encryption import FIELDS, HASHES
from domain.privacy.table import guests, is_known
from domain.runtime.database import is_given

#: What is destroyed.
_DESTROYED = ("wrapped_key", *FIELDS, *HASHES)


def forget(session: Session, reservation_ids: Collection[UUID], still: Sequence[ColumnElement[bool]] = ()) -> int:
    """Forget the guests of these reservations. Return how many were not forgotten before.

    If it is given of what a guest fulfils one, as `guests.with_email` returns it, others are left: a reservation may
    have got another guest since it was found.
    """
    given = {"ids": sorted(reservation_ids)}
    # In order of id, as a rotation locks them: neither waits for the other in a circle.
    locked = select(guests.c.id).where(is_given(guests.c.reservation_id), is_known).order_by(guests.c.id)
    locked = locked.where(or_(*still)) if still else locked
    ids = session.execute(locked.with_for_update(), given).scalars().all()
    session.execute(_FORGET, {"ids": ids})
    return len(ids)


_FORGET = (
    update(guests)
    .where(is_given(guests.c.id))
    .values({name: null() for name in _DESTROYED} | {"forgotten_at": func.clock_timestamp()})
)
