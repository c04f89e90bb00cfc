"""Rotation: the data keys that former keys have wrapped are wrapped by the present one, and the hashes made anew.

What the data keys encrypt stays as it is. A run can be killed and repeated, and two at once do no harm.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Uuid, select, update
from sqlalchemy.orm import Session, sessionmaker

from domain.privacy.encryption import HASHES, SealedGuest, data_key_of, hashes_of, opened
from domain.privacy.guests import COLUMNS, written
from domain.privacy.key_service import KeyService
from domain.privacy.table import guests, is_known
from domain.runtime.database import READ_IN_INDEX_ORDER, records
from domain.runtime.encoding import encode
from domain.runtime.errors import GuestUnreadable
from domain.runtime.identity import LOWEST_ID

#: The guests of one batch. They are locked for some hundredths of a second, for changes and for forgetting.
BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What became of one batch: how many guests were rotated, and which can't be read. `last` is where the next begins.

    Without `last`, there are no further ones.
    """

    rotated: int
    unreadable: Sequence[UUID]
    last: UUID | None


def former(keys: KeyService, counted: Mapping[str, int]) -> Sequence[str]:
    """Return the keys from which guests can be rotated, of those that have wrapped some."""
    return sorted(key_id for key_id in counted if key_id in keys.key_ids and key_id != keys.key_id)


def rotate(
    db: sessionmaker[Session],
    keys: KeyService,
    key_id: str,
    *,
    after: UUID = LOWEST_ID,
    limit: int = BATCH,
    waits: bool = False,
    record: Callable[[Session, int], None] = lambda _, rotated: None,
) -> Rotated:
    """Rotate a batch of the guests that this key has wrapped, in order of id. Raises PersonalDataUnavailable.

    Keys are used between two transactions: a key service may take long. A guest who is changed, forgotten or rotated
    meanwhile is left as is. One who is locked is left out, or waited for if it `waits`. `record` is called with the
    number of those who are rotated, in their transaction.
    """
    with db.begin() as session:
        session.execute(READ_IN_INDEX_ORDER)
        rows = session.execute(_batch(key_id, after, limit)).all()
    changes, unreadable = _rewrapped(keys, rows)
    with db.begin() as session:
        free = set(session.scalars(_lock_unchanged(key_id, [one["id"] for one in changes], waits=waits)))
        if free:
            session.execute(_REWRAP, {"changed": encode([one for one in changes if one["id"] in free])})
            record(session, len(free))
    last = rows[-1].id if len(rows) == limit else None
    return Rotated(rotated=len(free), unreadable=unreadable, last=last)


def _batch(key_id: str, after: UUID, limit: int) -> Select[Any]:
    columns = (guests.c[name] for name in COLUMNS)
    wanted = select(*columns).where(guests.c.key_id == key_id, is_known, guests.c.id > after)
    return wanted.order_by(guests.c.id).limit(limit)


def _lock_unchanged(key_id: str, ids: Sequence[UUID], *, waits: bool) -> Select[tuple[UUID]]:
    """Lock the guests whom this key has wrapped still. A guest who was changed has another id."""
    wanted = select(guests.c.id).where(guests.c.id.in_(ids), guests.c.key_id == key_id, is_known)
    return wanted.order_by(guests.c.id).with_for_update(skip_locked=not waits)


def _rewrapped(keys: KeyService, rows: Collection[Row[Any]]) -> tuple[Sequence[Mapping[str, Any]], Sequence[UUID]]:
    """Return what changes of each row, and the rows that can't be read."""
    changes, unreadable = [], []
    for row in rows:
        sealed = SealedGuest(**row._mapping)
        try:
            changes.append({"id": row.id, **written(_rewrap(keys, sealed))})
        except GuestUnreadable:
            unreadable.append(row.id)
    return changes, unreadable


def _rewrap(keys: KeyService, sealed: SealedGuest) -> Mapping[str, Any]:
    """Return what changes of a row. Raises GuestUnreadable."""
    data_key = data_key_of(keys, sealed)
    # A guest is opened, because the hashes can only be made from what they are of.
    hashes = hashes_of(keys, opened(sealed, data_key))
    return {"key_id": keys.key_id, "wrapped_key": keys.wrap(data_key, sealed.id.bytes), **hashes}


_CHANGED = ("key_id", "wrapped_key", *HASHES)
_changed = records("changed", id=Uuid, **{name: guests.c[name].type for name in _CHANGED})
_REWRAP = update(guests).where(guests.c.id == _changed.c.id).values({name: _changed.c[name] for name in _CHANGED})
