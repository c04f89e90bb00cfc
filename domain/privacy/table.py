"""The table of guests: the person that a reservation is for, if the reservation has one."""

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, Index, LargeBinary, String, Table, Uuid, func

from domain.runtime.database import metadata

guests = Table(
    "guests",
    metadata,
    # Made by the application, because what is encrypted is bound to it. Each change of a guest has another one.
    Column("id", Uuid, primary_key=True),
    Column("reservation_id", Uuid, ForeignKey("reservations.id"), nullable=False, unique=True),
    # The key by which the data key is wrapped, and by which the hashes are made.
    Column("key_id", String(50), nullable=False),
    Column("wrapped_key", LargeBinary),
    Column("name", LargeBinary),
    Column("email", LargeBinary),
    Column("telephone", LargeBinary),
    Column("special_requests", LargeBinary),
    Column("email_hash", LargeBinary),
    Column("telephone_hash", LargeBinary),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("forgotten_at", DateTime(timezone=True)),
    CheckConstraint(
        "CASE WHEN forgotten_at IS NULL THEN wrapped_key IS NOT NULL AND name IS NOT NULL ELSE"
        " num_nonnulls(wrapped_key, name, email, telephone, special_requests, email_hash, telephone_hash) = 0 END",
        name="forgotten_whole",
    ),
)

#: A guest that is not forgotten.
is_known = guests.c.wrapped_key.is_not(None)

Index(
    "ix_guests_email_hash",
    guests.c.email_hash,
    guests.c.reservation_id,
    postgresql_where=guests.c.email_hash.is_not(None),
)
Index(
    "ix_guests_telephone_hash",
    guests.c.telephone_hash,
    guests.c.reservation_id,
    postgresql_where=guests.c.telephone_hash.is_not(None),
)
#: For rotations, which read what was wrapped by one key in order of id.
Index("ix_guests_key_id", guests.c.key_id, guests.c.id, postgresql_where=is_known)
