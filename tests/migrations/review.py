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

#: Locks that those who read or change rows wait for. The last one is that of changed rows, for which others wait too.
BLOCKING = {"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock", "RowExclusiveLock"}

#: What may be executed outside a transaction: it blocks nobody, and it can be executed again.
HARMLESS = re.compile(
    r"\s*(CREATE\s+(UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\b"
    r"|DROP\s+INDEX\s+CONCURRENTLY\s+IF\s+EXISTS\b"
    r"|ALTER\s+TABLE\s+\w+\s+VALIDATE\s+CONSTRAINT\b"
    r"|(UPDATE|DELETE)\b.*\bLIMIT\b"
    r"|(SELECT|SET|ANALYZE)\b)[^;]*;?\s*$",
    re.IGNORECASE | re.DOTALL,
)


class LongLockError(Exception):
    """A migration could make others wait for long."""


class StoppedError(Exception):
    """A migration was interrupted by the test."""


class Use(NamedTuple):
    """What a transaction has done to a table so far: how often it was read from end to end, and its files."""

    name: str
    scans: int
    files: Mapping[str, int]


@contextmanager
def reviewed() -> Iterator[None]:
    """Let a migration in this process raise LongLockError if it could make others wait for long."""
    began: dict[Connection, dict[int, Use]] = {}

    def begin(connection: Connection) -> None:
        began[connection] = {} if _is_autocommit(connection) else _uses(connection)

    def commit(connection: Connection) -> None:
        if not _is_autocommit(connection):
            _review(began[connection], _uses(connection), _blocked(connection))

    def execute(connection: Connection, element: ClauseElement, *_: Any) -> None:
        statement = str(element.compile(dialect=connection.dialect))
        if _is_autocommit(connection) and not HARMLESS.match(statement):
            raise LongLockError(f"This is not for an autocommit_block: {statement.strip()}")

    with _listening(begin=begin, commit=commit, before_execute=execute):
        yield


def _review(began: dict[int, Use], ended: dict[int, Use], blocked: set[int]) -> None:
    for oid, use in ended.items():
        earlier = began.get(oid)
        if earlier is None or oid not in blocked:
            continue
        if any(use.files.get(one, number) != number for one, number in earlier.files.items()):
            raise LongLockError(f"{use.name} is written anew while it is locked.")
        if use.scans > earlier.scans:
            raise LongLockError(f"{use.name} is read from end to end while it is locked.")


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


def _blocked(connection: Connection) -> set[int]:
    """Return the tables of which the transaction holds a lock that others wait for."""
    held = "SELECT relation FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND mode = ANY(%s)"
    return {oid for (oid,) in _driver(connection).execute(held, [list(BLOCKING)]).fetchall()}


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
