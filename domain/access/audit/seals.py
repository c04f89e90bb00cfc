"""Sealing: what has been committed to the audit is covered by a hash, and each hash covers the ones before.

Entries are recorded without any lock, and sealed later, by one sealer at a time. So nobody who records waits for
another one, or for a sealer. The order of the seals is that in which entries were found, not that of their ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, delete, func, insert, literal, select
from sqlalchemy.orm import Session

from domain.access.audit.chain import BEGINNING, CANONICAL, NO_ENTRY, digest_of, hash_of, microseconds
from domain.access.audit.table import audit_entries, audit_seals, audit_unsealed
from domain.runtime.database import is_given

#: The key of the advisory lock that lets one transaction seal at a time: "audi" in ASCII.
SEAL_LOCK = 0x61756469

#: The entries of one seal. A seal of this many is a page of 20 kB.
SEAL_SIZE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The number of a seal, and its hash, which stands for all entries that are sealed up to it."""

    number: int
    hash: str


def seal(session: Session) -> int:
    """Seal up to SEAL_SIZE entries that are committed and not sealed yet. Return how many, 0 if another one seals."""
    if not session.execute(_TRY_LOCK).scalar_one():
        return 0
    # Statements of their own: they see what had been committed when the lock was taken.
    ids = session.execute(_UNSEALED).scalars().all()
    if ids:
        _insert(session, ids, _digests(session, ids))
        session.execute(_REMOVE, {"ids": ids})
    return len(ids)


def last_seal(session: Session) -> Seal | None:
    """Return the newest seal, or None if nothing was sealed yet."""
    found = session.execute(_LAST).one_or_none()
    return None if found is None else Seal(number=found.number, hash=found.hash.hex())


def _digests(session: Session, ids: Sequence[int]) -> bytes:
    found: Mapping[int, str] = {row.id: row.canonical for row in session.execute(TEXTS, {"ids": ids})}
    return b"".join(digest_of(found[one]) if one in found else NO_ENTRY for one in ids)


def _insert(session: Session, ids: Sequence[int], digests: bytes) -> None:
    last = session.execute(_LAST).one_or_none()
    number, before = (last.number + 1, last.hash) if last else (1, BEGINNING)
    now = session.execute(_NOW).one()
    values = {
        "number": number,
        "entry_ids": ids,
        "digests": digests,
        "sealed_at": now.sealed_at,
        "hash": hash_of(before, number, now.microseconds, ids, digests),
    }
    session.execute(insert(audit_seals).values(values))


_TRY_LOCK = select(func.pg_try_advisory_xact_lock(literal(SEAL_LOCK, BigInteger)))
_UNSEALED = select(audit_unsealed.c.entry_id).order_by(audit_unsealed.c.entry_id).limit(SEAL_SIZE)
_LAST = select(audit_seals.c.number, audit_seals.c.hash).order_by(audit_seals.c.number.desc()).limit(1)
_clock = select(func.clock_timestamp().label("sealed_at")).cte("clock").prefix_with("MATERIALIZED")
_NOW = select(_clock.c.sealed_at, microseconds(_clock.c.sealed_at).label("microseconds"))
_REMOVE = delete(audit_unsealed).where(is_given(audit_unsealed.c.entry_id))

#: The canonical texts of given entries, in any order.
TEXTS = select(audit_entries.c.id, CANONICAL.label("canonical")).where(is_given(audit_entries.c.id))
