"""The public keys of identity providers, as some process of this installation has last read them.

A process that starts while its provider is down verifies tokens with them, as those processes do that run already.
Nothing of them is secret. Whoever can change them could make tokens, but could make API keys as well.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Column, DateTime, String, Table, Text, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from domain.runtime.database import CLOCK, metadata

#: Keys that were read longer ago are not believed: they may have been withdrawn since. A provider that can't be reached
#: from Friday evening to Monday morning keeps nobody out.
LONGEST = timedelta(hours=72)

identity_provider_keys = Table(
    "identity_provider_keys",
    metadata,
    # A hash of where the keys come from: a URL may hold a secret.
    Column("source", String(64), primary_key=True),
    # A JWKS document.
    Column("document", Text, nullable=False),
    Column("read_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

_table = identity_provider_keys.c


class StoredDocument(NamedTuple):
    """A JWKS document, and when a provider has last served it."""

    document: str
    read_at: datetime


def find(session: Session, source: str) -> StoredDocument | None:
    """Return the document that is stored of a source, unless it is too old to be believed."""
    believed = select(_table.document, _table.read_at).where(_table.source == source, _table.read_at > CLOCK - LONGEST)
    row = session.execute(believed).one_or_none()
    return None if row is None else StoredDocument(*row)


def store(session: Session, source: str, document: str) -> None:
    """Store the document that a source serves now. Those of sources that are no longer read are deleted."""
    session.execute(_FORGET)
    given = insert(identity_provider_keys).values(source=source, document=document, read_at=CLOCK)
    session.execute(
        given.on_conflict_do_update(
            index_elements=[_table.source],
            set_={"document": given.excluded.document, "read_at": given.excluded.read_at},
        )
    )


# A row that another process stores at this moment is not too old, and nobody waits for it.
_FORGET = delete(identity_provider_keys).where(
    _table.source.in_(select(_table.source).where(_table.read_at <= CLOCK - LONGEST).with_for_update(skip_locked=True))
)
