"""Storing, reading and finding guests, who are encrypted. No key is used in a transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from domain.privacy.encryption import SealedGuest, normalised_email, normalised_telephone
from domain.privacy.key_service import KeyService
from domain.privacy.table import guests, is_known
from domain.runtime.database import records
from domain.runtime.encoding import encode
from domain.runtime.errors import GuestForgotten, UnknownGuest
from domain.runtime.pipeline import Query

#: The columns that a guest is written to and read from.
COLUMNS = tuple(field.name for field in fields(SealedGuest))


def insert_query(given: Sequence[tuple[UUID, SealedGuest]]) -> Query:
    """Return the query that stores the guests of new reservations, by the ids of these."""
    return Query(_INSERT, {"given_guests": encode([_row(reservation_id, guest) for reservation_id, guest in given])})


_given = records("given_guests", **{name: guests.c[name].type for name in ("reservation_id", *COLUMNS)})
_INSERT = insert(guests).from_select(list(_given.c.keys()), select(_given))


def _row(reservation_id: UUID, guest: SealedGuest) -> Mapping[str, Any]:
    return {"reservation_id": reservation_id, **written({name: getattr(guest, name) for name in COLUMNS})}


def written(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values of a row as JSON can have them: bytes in hexadecimal digits, as PostgreSQL reads them."""
    return {name: rf"\x{value.hex()}" if isinstance(value, bytes) else value for name, value in values.items()}


def read(session: Session, reservation_id: UUID) -> SealedGuest:
    """Return the guest of a reservation, still encrypted. Raises UnknownGuest, GuestForgotten."""
    row = session.execute(_READ.where(guests.c.reservation_id == reservation_id)).one_or_none()
    if row is None:
        raise UnknownGuest(reservation_id)
    if row.forgotten_at is not None:
        raise GuestForgotten(reservation_id, row.forgotten_at)
    return SealedGuest(**{name: row._mapping[name] for name in COLUMNS})


_READ = select(*(guests.c[name] for name in COLUMNS), guests.c.forgotten_at)


def change(session: Session, reservation_id: UUID, guest: SealedGuest) -> GuestForgotten | None:
    """Give a reservation this guest in place of the one that it has, if it has one.

    Who was forgotten stays so: that is the refusal which is returned.
    """
    values = {name: getattr(guest, name) for name in COLUMNS}
    given = insert(guests).values(reservation_id=reservation_id, **values)
    changed = given.on_conflict_do_update(
        index_elements=["reservation_id"], set_=values, where=guests.c.forgotten_at.is_(None)
    )
    if session.execute(changed.returning(guests.c.id)).one_or_none():
        return None
    forgotten_at = select(guests.c.forgotten_at).where(guests.c.reservation_id == reservation_id)
    return GuestForgotten(reservation_id, session.execute(forgotten_at).scalar_one())


def with_email(keys: KeyService, email: str) -> Sequence[ColumnElement[bool]]:
    """Return the conditions that a guest has this e-mail address: one for each key that the row may have."""
    return [guests.c.email_hash == one for one in keys.hashes("email", normalised_email(email))]


def with_telephone(keys: KeyService, telephone: str) -> Sequence[ColumnElement[bool]]:
    """Return the conditions that a guest has this telephone number: one for each key that the row may have."""
    return [guests.c.telephone_hash == one for one in keys.hashes("telephone", normalised_telephone(telephone))]


def count_by_key(session: Session) -> Mapping[str, int]:
    """Return the number of guests who are not forgotten, by the key that has wrapped their data key."""
    counted = select(guests.c.key_id, func.count().label("number")).where(is_known).group_by(guests.c.key_id)
    return {row.key_id: row.number for row in session.execute(counted)}
