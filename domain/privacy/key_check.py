"""Whether the keys are there by which guests were encrypted: without them, nobody can say who is among these guests."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, true, union_all
from sqlalchemy.orm import Session

from domain.privacy.key_service import KeyService
from domain.privacy.table import guests, is_known
from domain.runtime.database import READ_IN_INDEX_ORDER
from domain.runtime.errors import GuestUnreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A guest by whom a key is tried. Nothing that is encrypted of the guest is part of it."""

    id: UUID
    reservation_id: UUID
    key_id: str
    wrapped_key: bytes

    def opens(self, keys: KeyService) -> bool:
        """Whether the data key of the guest can be unwrapped, which takes a key service one call."""
        try:
            keys.unwrap(self.key_id, self.wrapped_key, self.id.bytes)
        except GuestUnreadable:
            return False
        return True


def samples(session: Session) -> Sequence[Sample]:
    """Return the oldest and the newest guest of each key that guests have, in order of the keys.

    It reads a few rows for each key, however many guests there are. For the rest of the transaction, PostgreSQL reads
    by indexes only.
    """
    session.execute(READ_IN_INDEX_ORDER)
    found = {Sample(**row._mapping) for row in session.execute(_SAMPLES)}
    return sorted(found, key=lambda one: (one.key_id, one.id))


def unusable(keys: KeyService, found: Sequence[Sample]) -> Sequence[str]:
    """Return the keys that are missing, or are other ones than those that have wrapped the samples."""
    return sorted({one.key_id for one in found if not one.opens(keys)})


_first = select(guests.c.key_id).where(is_known).order_by(guests.c.key_id).limit(1).scalar_subquery()
_key_ids = select(_first.label("key_id")).cte("key_ids", recursive=True)
_next = (
    select(guests.c.key_id)
    .where(is_known, guests.c.key_id > _key_ids.c.key_id)
    .order_by(guests.c.key_id)
    .limit(1)
    .scalar_subquery()
)
_key_ids = _key_ids.union_all(select(_next).where(_key_ids.c.key_id.is_not(None)))


def _one_of_each(*order: ColumnElement[UUID]) -> Select[tuple[UUID, UUID, str, bytes]]:
    columns = guests.c.id, guests.c.reservation_id, guests.c.key_id, guests.c.wrapped_key
    of_key = select(*columns).where(is_known, guests.c.key_id == _key_ids.c.key_id).order_by(*order).limit(1).lateral()
    return select(of_key).select_from(_key_ids.join(of_key, true()))


_SAMPLES = union_all(
    _one_of_each(guests.c.key_id, guests.c.id), _one_of_each(guests.c.key_id.desc(), guests.c.id.desc())
)
