"""API keys: by which machines say who they are. What is stored of a key can't be used as one.

A key is `hf_`, its id, `_` and a secret of 256 bits. Of the secret there is only a hash: it is random, so nobody can
guess it, and a slow hash would gain nothing.
"""

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    Date,
    DateTime,
    Index,
    Row,
    Select,
    String,
    Table,
    and_,
    any_,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from domain.access import audit
from domain.access.principals import KEY, Principal, Role
from domain.runtime.database import CLOCK, metadata
from domain.runtime.errors import Invalid

#: How every key begins, so that tools find one that was published by mistake.
PREFIX = "hf_"

ID_BYTES, SECRET_BYTES = 8, 32

#: Characters.
NAME_LENGTH = 100

#: Characters of a venue or a provider, as many as an item has room for.
OWNER_LENGTH = 64

#: No key lasts for longer, or serves on for longer when another one takes its place.
LONGEST = timedelta(days=36_500)

#: Python has no later year. A time after it, which only somebody else can have stored, is read as this one.
_LATEST = datetime(9999, 12, 31, tzinfo=UTC)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("secret_hash", String(64), nullable=False),
    Column("roles", ARRAY(String(20)), nullable=False),
    Column("venues", ARRAY(String(64)), nullable=False),
    Column("providers", ARRAY(String(64)), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("last_used_on", Date),
)
Index("ix_api_keys_name", api_keys.c.name)
Index("ix_api_keys_changed_at", api_keys.c.changed_at)

_is_valid = and_(api_keys.c.revoked_at.is_(None), or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > CLOCK))


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidKey:
    """What a request is checked by. `venues` and `providers` are those for which its principal acts."""

    key_id: str
    name: str
    secret_hash: str
    roles: frozenset[Role]
    venues: frozenset[str]
    providers: frozenset[str]

    @property
    def principal(self) -> Principal:
        """Who sends a request with it. A key that takes its place is the same principal."""
        return Principal(f"{KEY}{self.name}", self.roles, venues=self.venues, providers=self.providers)

    def opens_with(self, secret: str) -> bool:
        """Return whether this is its secret. However it differs, that takes the same time."""
        return hmac.compare_digest(_hash(secret), self.secret_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(ValidKey):
    """All that is stored of a key."""

    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_on: date | None


def parts_of(key: str) -> tuple[str, str] | None:
    """Return the id and the secret of a key, or None if it is none."""
    key_id, separator, secret = key.removeprefix(PREFIX).partition("_")
    return (key_id, secret) if key.startswith(PREFIX) and separator and secret else None


def create(
    session: Session,
    name: str,
    roles: Collection[Role],
    *,
    venues: Collection[str] = (),
    providers: Collection[str] = (),
    lasting: timedelta | None = None,
    who: str,
    why: str | None = None,
) -> str:
    """Create a key, and return it: this is the only time that it is known. Raises Invalid."""
    _require_name("name", name, NAME_LENGTH)
    _require_owners(roles, venues, providers)
    if lasting is not None and lasting > LONGEST:
        raise Invalid("days", f"a key lasts for {LONGEST.days:,} days at most; leave them out for one without an end")
    if not roles:
        raise Invalid("roles", "a key without a role could do nothing; name at least one")
    if _lock(session, name):
        raise Invalid("name", f"a key named {name} is valid already; rotate it, or revoke it first")
    rights: Mapping[str, Sequence[str]]
    rights = {"roles": sorted(roles), "venues": sorted(venues), "providers": sorted(providers)}
    audit.record(session, "api-key.create", who=who, why=why, subject=f"key:{name}", selection=_described(rights))
    return _insert(session, name, rights, lasting)


def _require_name(field: str, name: str, most: int) -> None:
    if not 1 <= len(name) <= most or not name.isprintable() or name != name.strip():
        raise Invalid(field, f"it must have 1 to {most} printable characters, and no space before or after them")


def _require_owners(roles: Collection[Role], venues: Collection[str], providers: Collection[str]) -> None:
    """Raise Invalid if the key would act for what no item can have, or for nobody."""
    for role, field, owners in ((Role.BUSINESS, "venues", venues), (Role.PROVIDER, "providers", providers)):
        for one in owners:
            _require_name(field, one, OWNER_LENGTH)
        if role in roles and not owners:
            raise Invalid(field, f"a key with the role {role} needs at least one {field[:-1]} to act for")
        if owners and role not in roles:
            raise Invalid(field, f"only the role {role} acts for {field}; the others would not be limited to them")


def rotate(session: Session, name: str, overlap: timedelta, *, who: str, why: str | None = None) -> str:
    """Create a key in place of another one, which serves on for the overlap. Return it. Raises Invalid."""
    if overlap > LONGEST:
        raise Invalid("overlap-hours", f"the present key serves on for {LONGEST.days * 24:,} hours at most")
    found = _lock_known(session, name)
    present = max(found, key=lambda one: one.created_at)
    ends_at = func.least(api_keys.c.expires_at, CLOCK + overlap)
    _change(session, [one.key_id for one in found], expires_at=ends_at)
    lasting = min(present.expires_at - present.created_at, LONGEST) if present.expires_at else None
    rights = {name: sorted(getattr(present, name)) for name in ("roles", "venues", "providers")}
    audit.record(session, "api-key.rotate", who=who, why=why, subject=f"key:{name}", rows=len(found))
    return _insert(session, name, rights, lasting)


def revoke(session: Session, name: str, *, who: str, why: str | None = None) -> int:
    """Revoke all keys of this name that are valid, and return how many. Raises Invalid if there is none."""
    found = _lock_known(session, name)
    _change(session, [one.key_id for one in found], revoked_at=CLOCK)
    audit.record(session, "api-key.revoke", who=who, why=why, subject=f"key:{name}", rows=len(found))
    return len(found)


def find(session: Session) -> Sequence[ApiKey]:
    """Return all keys in order of name and time, those that are no longer valid included."""
    return [_of(row) for row in session.execute(_ALL.order_by(api_keys.c.name, api_keys.c.created_at))]


def read_valid(session: Session) -> Mapping[str, ValidKey]:
    """Return the keys that are valid now, by their ids. No times are read: one that can't be used hides no key."""
    return {row.key_id: ValidKey(**_read(row)) for row in session.execute(_CHECKED.where(_is_valid))}


_expires_at = case((api_keys.c.expires_at > _LATEST, _LATEST), else_=api_keys.c.expires_at).label("expires_at")
_ALL: Select[Any] = select(*(api_keys.c[one.name] for one in fields(ApiKey) if one.name != "expires_at"), _expires_at)
_CHECKED: Select[Any] = select(*(api_keys.c[one.name] for one in fields(ValidKey)))


def note_used(session: Session, key_ids: Collection[str]) -> None:
    """Note that these keys were used today. Those that somebody else has locked are left out."""
    session.execute(_NOTE_USED, {"ids": sorted(key_ids)})


_used = (
    select(api_keys.c.key_id)
    .where(
        api_keys.c.key_id == any_(bindparam("ids", type_=ARRAY(String))),
        api_keys.c.last_used_on.is_distinct_from(func.current_date()),
    )
    .order_by(api_keys.c.key_id)
    .with_for_update(skip_locked=True)
)
_NOTE_USED = update(api_keys).where(api_keys.c.key_id.in_(_used)).values(last_used_on=func.current_date())


def _lock_known(session: Session, name: str) -> Sequence[ApiKey]:
    found = _lock(session, name)
    if not found:
        raise Invalid("name", f"no key named {name} is valid; bin/api-keys list shows all")
    return found


def _lock(session: Session, name: str) -> Sequence[ApiKey]:
    """Lock the valid keys of this name. Who does the same at the same time waits."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"api_keys {name}", 0))))
    valid = _ALL.where(api_keys.c.name == name, _is_valid).order_by(api_keys.c.key_id)
    return [_of(row) for row in session.execute(valid.with_for_update())]


def _described(rights: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    return {name: ", ".join(values) for name, values in rights.items() if values}


def _insert(session: Session, name: str, rights: Mapping[str, Sequence[str]], lasting: timedelta | None) -> str:
    key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    values = {
        "key_id": key_id,
        "name": name,
        "secret_hash": _hash(secret),
        **rights,
        "expires_at": None if lasting is None else CLOCK + lasting,
    }
    session.execute(insert(api_keys).values(values))
    return f"{PREFIX}{key_id}_{secret}"


def _change(session: Session, key_ids: Sequence[str], **values: object) -> None:
    changed = update(api_keys).where(api_keys.c.key_id.in_(key_ids))
    session.execute(changed.values(values | {"changed_at": CLOCK}))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _of(row: Row[Any]) -> ApiKey:
    return ApiKey(**_read(row))


def _read(row: Row[Any]) -> Mapping[str, Any]:
    known = {role.value: role for role in Role}
    roles = frozenset(known[role] for role in row.roles if role in known)
    owned = {name: frozenset(row._mapping[name]) for name in ("venues", "providers")}
    return {**row._mapping, **owned, "roles": roles}
