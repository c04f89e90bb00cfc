"""Alembic's environment: one migration at a time, and none that makes others wait for long."""

import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from domain import feed, idempotency, items, outbox, reservations  # noqa: F401 - their tables are in the metadata
from domain.runtime import database
from domain.runtime.settings import Settings
from migrations import locks

#: A migration that did not get a lock in time is undone and tried again, this many times in all.
ATTEMPTS = 4

#: Between two attempts, everybody who had to wait gets ahead.
PAUSE_SECONDS = 2.0

#: A migration that does nothing for longer than this, within a transaction, hangs.
IDLE_SECONDS = 60

logging.basicConfig(level=logging.WARNING)


def migrate() -> None:
    engine = database.connect(Settings.load().direct(), connections=1, checked=False)
    locks.limit_waiting(engine)
    try:
        with engine.connect() as connection:
            _be_patient(connection)
            locks.wait_for_turn(connection)
            _persist(connection)
    finally:
        engine.dispose()


def _be_patient(connection: Connection) -> None:
    """Let the session survive a machine that is so busy that a migration does nothing for some seconds."""
    connection.exec_driver_sql(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
    connection.commit()


def _persist(connection: Connection) -> None:
    """Run the migrations, and try again if one of them did not get a lock in time."""
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            _run(connection)
        except OperationalError as error:
            if not locks.waited_in_vain(error):
                raise
            connection.rollback()
            if not attempts_left or locks.is_concurrent(error.statement or ""):
                error.add_note(locks.oldest_transactions(connection))
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            break


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=database.metadata,
        transaction_per_migration=True,
        on_version_apply=_record_what_is_served,
    )
    with context.begin_transaction():
        context.run_migrations()


def _record_what_is_served(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Store the oldest revision whose code the schema serves beside the schema's version, in the same transaction."""
    connection = ctx.connection
    if ctx.as_sql or connection is None:
        return
    # Adding the column takes a lock that a running dump of the database denies, so it is done only once.
    if connection.execute(_HAS_COLUMN).scalar_one_or_none() is None:
        connection.execute(text("ALTER TABLE alembic_version ADD COLUMN serves_from varchar(32)"))
    applied = list(context.script.iterate_revisions(tuple(heads), "base"))
    if applied:
        oldest = max(getattr(script.module, "serves_from", applied[-1].revision) for script in applied)
        connection.execute(text("UPDATE alembic_version SET serves_from = :oldest"), {"oldest": oldest})


_HAS_COLUMN = text(
    "SELECT 1 FROM pg_attribute WHERE attrelid = 'alembic_version'::regclass AND attname = 'serves_from'"
)


if context.is_offline_mode():
    context.configure(url="postgresql://", target_metadata=database.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    migrate()
