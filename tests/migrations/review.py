"""Reviews a migration while it runs: whether it could hold a lock for long, and whether it can be run again.

What a transaction has read and locked, PostgreSQL itself says. A whole table is read by a build of an index, by a check
of a constraint and by a change of every row; a new file is written by a change of a column's type or a volatile
default. While the transaction also holds a lock that others wait for, they wait for as long as that takes.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import ClauseElement, Connection, Engine, event

#: Locks of a table that those who read or change its rows wait for.
BLOCKING = {"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"}

#: The lock of a table whose rows are being changed. Others wait for these rows.
CHANGING = "RowExclusiveLock"

#: What may be executed outside a transaction: it blocks nobody, and it can be executed again.
HARMLESS = re.compile(
    r"\s*(CREATE\s+(UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\b"
    r"|DROP\s+INDEX\s+CONCURRENTLY\s+IF\s+EXISTS\b"
    r"|ALTER\s+TABLE\s+\w+\s+VALIDATE\s+CONSTRAINT\b"
    r"|(UPDATE|DELETE)\b.*\bLIMIT\b"
    r"|(SELECT|SET|ANALYZE)\b)[^;]*;?\s*$",
    re.IGNORECASE | re.DOTALL,
)


class LockingError(Exception):
    """A migration could make others wait for long, or deadlock with them."""


class StoppedError(Exception):
    """A migration was interrupted by the test."""


class Use(NamedTuple):
    """What a transaction has done to a table so far: how often it was read from end to end, and its files."""

    name: str
    scans: int
    files: Mapping[str, int]


@contextmanager
def reviewed() -> Iterator[None]:
    """Let a migration in this process raise LockingError if it could make others wait for long."""
    began: dict[Connection, dict[int, Use]] = {}

    def begin(connection: Connection) -> None:
        began[connection] = {} if _is_autocommit(connection) else _uses(connection)

    def commit(connection: Connection) -> None:
        if not _is_autocommit(connection):
            _review(began[connection], _uses(connection), _locked(connection))

    def execute(connection: Connection, element: ClauseElement, *_: Any) -> None:
        statement = str(element.compile(dialect=connection.dialect))
        if _is_autocommit(connection) and not HARMLESS.match(statement):
            raise LockingError(f"This is not for an autocommit_block: {statement.strip()}")

    def executed(connection: Connection, *_: Any) -> None:
        if not _is_autocommit(connection):
            _review_order(connection, began[connection])

    with _listening(begin=begin, commit=commit, before_execute=execute, after_execute=executed):
        yield


def _review(began: dict[int, Use], ended: dict[int, Use], locked: dict[int, set[str]]) -> None:
    there_before = {oid: (began[oid], ended[oid]) for oid in locked if oid in began and oid in ended}
    for earlier, later in there_before.values():
        if any(later.files.get(one, number) != number for one, number in earlier.files.items()):
            raise LockingError(f"{later.name} is written anew while it is locked.")
        if later.scans > earlier.scans:
            raise LockingError(f"{later.name} is read from end to end while it is locked.")


def _review_order(connection: Connection, began: dict[int, Use]) -> None:
    """Requests lock tables in more than one order, so there is none that a migration could keep to.

    It may lock a second table only by a statement that gives up before PostgreSQL looks for deadlocks.
    """
    blocked = [began[oid].name for oid, modes in _locked(connection).items() if oid in began and modes & BLOCKING]
    if len(blocked) > 1 and not _driver(connection).execute(_GIVES_UP_IN_TIME).fetchone()[0]:
        raise LockingError(f"{' and '.join(blocked)} are locked by one transaction, which may deadlock with requests.")


_GIVES_UP_IN_TIME = """
    SELECT 0 < l.setting::int AND l.setting::int <= d.setting::int / 2
    FROM pg_settings AS l, pg_settings AS d WHERE (l.name, d.name) = ('lock_timeout', 'deadlock_timeout')
"""


def _uses(connection: Connection) -> dict[int, Use]:
    return {oid: Use(*rest) for oid, *rest in _driver(connection).execute(_USES).fetchall()}


# Statistics of the transaction are of all that PostgreSQL has not published yet: only differences count.
_USES = """
    SELECT c.oid, c.relname, pg_stat_get_xact_numscans(c.oid),
           (SELECT jsonb_object_agg(one, pg_relation_filenode(one))
            FROM (SELECT c.oid UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid = c.oid) AS files (one))
    FROM pg_class AS c
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND c.relname <> 'alembic_version'
"""


def _locked(connection: Connection) -> dict[int, set[str]]:
    """Return the locks of tables that the transaction holds, and that others wait for."""
    held = """
        SELECT relation, array_agg(mode) FROM pg_locks
        WHERE pid = pg_backend_pid() AND locktype = 'relation' AND mode = ANY(%s)
        GROUP BY relation
    """
    return {oid: set(modes) for oid, modes in _driver(connection).execute(held, [[*BLOCKING, CHANGING]]).fetchall()}


@contextmanager
def interrupted(*, after: int) -> Iterator[None]:
    """Let a migration in this process raise StoppedError after so many changes outside a transaction."""
    changes = 0

    def execute(connection: Connection, element: ClauseElement, *_: Any) -> None:
        nonlocal changes
        changes += _is_autocommit(connection) and not str(element).startswith("SELECT")
        if changes == after:
            raise StoppedError

    with _listening(after_execute=execute):
        yield


def _is_autocommit(connection: Connection) -> bool:
    return bool(_driver(connection).autocommit)


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


@contextmanager
def _listening(**listeners: Any) -> Iterator[None]:
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)
