"""The tables of the audit: the entries, those that wait to be sealed, and the seals.

Triggers refuse every UPDATE, DELETE and TRUNCATE of the entries and of the seals, and a seal that is not the next one;
see `guards`.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

from domain.runtime.database import metadata

#: Who did what, why, to what, and to how many rows. Of people there are only ids.
audit_entries = Table(
    "audit_entries",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("action", String(20), nullable=False),
    Column("who", String(255), nullable=False),
    # Empty if no reason is asked for.
    Column("why", Text, nullable=False),
    Column("selection", JSONB, nullable=False),
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("happened_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("subject", String(255)),
    # The first entry of the operation of which this is a further batch.
    Column("operation_id", BigInteger),
    CheckConstraint("jsonb_typeof(selection) = 'object'", name="selection_is_object"),
)
Index("ix_audit_entries_action_id", audit_entries.c.action, audit_entries.c.id)
Index("ix_audit_entries_who_id", audit_entries.c.who, audit_entries.c.id)
Index(
    "ix_audit_entries_subject_id",
    audit_entries.c.subject,
    audit_entries.c.id,
    postgresql_where=audit_entries.c.subject.is_not(None),
)
Index("ix_audit_entries_happened_at", audit_entries.c.happened_at)

# A trigger adds each entry, in its transaction. So an entry that commits late is not missed, however many later ones
# were sealed before. There is no foreign key, since an entry that was deleted before it was sealed has to show.
audit_unsealed = Table(
    "audit_unsealed",
    metadata,
    Column("entry_id", BigInteger, primary_key=True, autoincrement=False),
    # Whoever reads from the beginning walks over the entries of sealed rows until a vacuum has removed them.
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 10_000},
)

#: A chain: the hash of each seal covers the one before. `digests` has 32 bytes for each entry, in order.
audit_seals = Table(
    "audit_seals",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("entry_ids", ARRAY(BigInteger), nullable=False),
    Column("digests", LargeBinary, nullable=False),
    Column("sealed_at", DateTime(timezone=True), nullable=False),
    Column("hash", LargeBinary, nullable=False),
)
