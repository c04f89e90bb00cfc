"""Alembic's environment: one migration at a time, and none that waits for a lock for long."""

import logging

from alembic import context
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from domain import idempotency, items, outbox, reservations  # noqa: F401 - their tables are in the metadata
from domain.runtime.database import metadata
from domain.runtime.settings import Settings

#: Any number that no other program of this database uses: who holds it, migrates.
ADVISORY_LOCK = 6_011_996

#: A migration that waits for a lock makes everything behind it wait as well. It gives up
#: instead, having changed nothing, and is run again.
LOCK_TIMEOUT = "4s"

logging.basicConfig(level=logging.WARNING)


def migrate() -> None:
    url = make_url(Settings.load().database_url).set(drivername="postgresql+psycopg")
    with create_engine(url, poolclass=NullPool).connect() as connection:
        # Another one that is at it is waited for; then there is nothing left to do.
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.commit()
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    context.configure(url="postgresql://", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    migrate()
