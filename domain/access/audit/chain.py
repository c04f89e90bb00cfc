"""How entries and seals are hashed. Whoever has both can compute it again; docs/audit.md describes it. Mostly pure.

An entry's digest is the SHA-256 of its canonical text: a JSON array of text and numbers, as PostgreSQL writes `jsonb`,
which no setting of a session changes. The instant in it is a number of microseconds. The hash of a seal is the SHA-256
of the hash before it, a line with its number, its instant and the ids of its entries, and their digests.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, extract, func

from domain.access.audit.table import audit_entries

DIGEST_BYTES = 32

#: What the first seal has for the hash before it.
BEGINNING = bytes(DIGEST_BYTES)

#: In place of the digest of an entry that was deleted before it was sealed.
NO_ENTRY = bytes(DIGEST_BYTES)


def microseconds(instant: ColumnElement[Any]) -> ColumnElement[str]:
    """Return an instant as the number of microseconds since 1970, in text: it is exact, and in no time zone."""
    return cast(func.trunc(extract("epoch", instant) * 1_000_000), Text)


#: The canonical text of an entry.
CANONICAL: ColumnElement[str] = cast(
    func.jsonb_build_array(
        audit_entries.c.id,
        microseconds(audit_entries.c.happened_at),
        audit_entries.c.who,
        audit_entries.c.action,
        audit_entries.c.subject,
        audit_entries.c.why,
        audit_entries.c.selection,
        audit_entries.c.rows,
        audit_entries.c.operation_id,
    ),
    Text,
)


def digest_of(canonical: str) -> bytes:
    """Return the digest of an entry by its canonical text."""
    return hashlib.sha256(canonical.encode()).digest()


def hash_of(before: bytes, number: int, sealed_at: str, entry_ids: Sequence[int], digests: bytes) -> bytes:
    """Return the hash of a seal; `sealed_at` is in microseconds, and `before` the hash of the seal before it."""
    line = f"{number} {sealed_at} {','.join(map(str, entry_ids))}\n"
    return hashlib.sha256(before + line.encode() + digests).digest()
