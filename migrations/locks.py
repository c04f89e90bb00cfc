"""Locks of migrations: whose turn it is, how long a statement waits, and indexes that are built beside the traffic."""

import re
import sys
import time

from sqlalchemy import ClauseElement, Connection, Engine, event, func, select, text
from sqlalchemy.exc import OperationalError

from domain.runtime.database_errors import code_of

#: Any number that no other program of this database uses: who holds it, migrates.
ADVISORY_LOCK = 6_011_996

#: How often a migration looks whether another one has ended, and after which time it reports that it waits.
LOOK_SECONDS, REPORT_SECONDS = 0.2, 3.0

#: A statement that waits for a lock makes everything behind it wait as well, so it gives up after this time. That is
#: longer than PostgreSQL's deadlock_timeout of 1 s, after which an autovacuum that is in the way ends itself.
LOCK_TIMEOUT = "2s"

#: A concurrent statement waits for every transaction that began before it, and nobody waits for it. But an operator
#: should hear of a transaction that never ends.
CONCURRENT_LOCK_TIMEOUT = "10min"

#: PostgreSQL's codes of a lock time-out and of a deadlock.
WAITED_IN_VAIN = frozenset({"55P03", "40P01"})


def wait_for_turn(connection: Connection) -> None:
    """Return when no other migration of this database runs. None begins until this connection is closed.

    Meanwhile it holds no transaction and no snapshot: the other migration may build an index concurrently, and waits
    for all of them.
    """
    level = connection.default_isolation_level
    connection.execution_options(isolation_level="AUTOCOMMIT")
    report_at = time.monotonic() + REPORT_SECONDS
    while not connection.execute(_TRY).scalar_one():
        if time.monotonic() > report_at:
            print(_describe_holder(connection), file=sys.stderr)
            report_at = float("inf")
        time.sleep(LOOK_SECONDS)
    connection.commit()
    connection.execution_options(isolation_level=level)


_TRY = select(func.pg_try_advisory_lock(ADVISORY_LOCK))


def _describe_holder(connection: Connection) -> str:
    holder = connection.execute(_HOLDER, {"key": ADVISORY_LOCK}).one_or_none()
    which = f" (process {holder.pid} of PostgreSQL, connected since {holder.since})" if holder else ""
    return f"Another migration{which} is running. This one continues when it has ended."


_HOLDER = text("""
    SELECT pid, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND (classid, objid, objsubid) = (0, :key, 1)
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


def limit_waiting(engine: Engine) -> None:
    """Let no statement of a migration wait for long, and let each index that is built concurrently be built anew.

    An index whose concurrent build was interrupted stays in the table, invalid. So a migration that is interrupted
    can be run again: it drops such an index, and `IF NOT EXISTS` skips those that were completed.
    """
    event.listen(engine, "before_execute", _prepare)


def _prepare(connection: Connection, element: ClauseElement, *_: object) -> None:
    statement = str(element.compile(dialect=connection.dialect))
    timeout = CONCURRENT_LOCK_TIMEOUT if is_concurrent(statement) else LOCK_TIMEOUT
    connection.exec_driver_sql(f"SET lock_timeout = '{timeout}'")
    if built := _BUILD.match(statement):
        _drop_unfinished(connection, built["name"])


def _drop_unfinished(connection: Connection, name: str) -> None:
    unfinished = "SELECT FROM pg_index WHERE indexrelid = to_regclass(%(name)s) AND NOT indisvalid"
    if connection.exec_driver_sql(unfinished, {"name": name}).one_or_none() is not None:
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {name}")


def is_concurrent(statement: str) -> bool:
    """Return whether a statement is one of those on indexes that block nobody."""
    return _CONCURRENT.match(statement) is not None


_CONCURRENT = re.compile(r"\s*(CREATE\s+(UNIQUE\s+)?INDEX|DROP\s+INDEX|REINDEX\s+\w+)\s+CONCURRENTLY\b", re.IGNORECASE)

_BUILD = re.compile(
    r"\s*CREATE\s+(UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(IF\s+NOT\s+EXISTS\s+)?(?P<name>[\w.]+)\s+ON\b", re.IGNORECASE
)


def waited_in_vain(error: OperationalError) -> bool:
    """Return whether a statement failed because it did not get a lock."""
    return code_of(error) in WAITED_IN_VAIN


def oldest_transactions(connection: Connection) -> str:
    """Describe the transactions that a migration may be waiting for: those that have been open for longest."""
    found = connection.execute(_OLDEST).all()
    return ", ".join(f"process {one.pid} ({one.program}, for {one.seconds:,} s)" for one in found)


_OLDEST = text("""
    SELECT pid, coalesce(nullif(application_name, ''), backend_type) AS program,
        trunc(extract(epoch FROM clock_timestamp() - xact_start))::bigint AS seconds
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < now() - interval '1 s'
    ORDER BY xact_start
    LIMIT 3
""")
