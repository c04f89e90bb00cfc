"""Several statements in one round trip: for most statements, the way to PostgreSQL costs more than their execution.

A function whose name ends in `_query` returns what to execute, and executes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, NamedTuple

import psycopg
from psycopg.abc import PQGen
from psycopg.generators import send
from psycopg.rows import namedtuple_row
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.orm import Session

from domain.runtime.database import driver_of, invalidate_if_lost, raised_by_driver


class Query(NamedTuple):
    """A statement and its parameters."""

    statement: Executable
    parameters: Mapping[str, Any]


def execute(session: Session, queries: Iterable[Query]) -> Sequence[Sequence[Any]]:
    """Execute queries in this order, and return the rows of each.

    PostgreSQL executes each as soon as it is sent, so it works while a generator makes the next one. If one fails, so
    does the transaction. Raises the errors that `session.execute` raises.
    """
    driver = driver_of(session)
    try:
        with _opened(driver):
            cursors = [_send(driver, query) for query in queries]
        return [cursor.fetchall() if cursor.description else () for cursor in cursors]
    except psycopg.Error as error:
        raise raised_by_driver(session, error) from error
    except BaseException:  # of whatever makes the queries
        invalidate_if_lost(session)
        raise


class _Pipeline(psycopg.Pipeline):
    """A pipeline that sends nothing after its end.

    psycopg asks for the results once more, which changes one thing only: PostgreSQL no longer looks how long the
    transaction has been idle. It looks from when it has answered the end of a pipeline until the next message.
    """

    def _exit_gen(self) -> PQGen[None]:
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
        finally:
            if self.result_queue:
                yield from send(self.pgconn)
            yield from self._fetch_gen(flush=False)


def _opened(driver: psycopg.Connection[Any]) -> AbstractContextManager[psycopg.Pipeline]:
    # psycopg enters the pipeline that a connection has, and makes one of its own only if there is none.
    driver._pipeline = _Pipeline(driver)
    return driver.pipeline()


def _send(driver: psycopg.Connection[Any], query: Query) -> psycopg.Cursor[Any]:
    text, constants = _compiled(query.statement)
    return driver.cursor(row_factory=namedtuple_row).execute(text, {**constants, **query.parameters})


# Statements are constants of modules, so there are few.
@cache
def _compiled(statement: Executable) -> tuple[str, Mapping[str, Any]]:
    """Return the text of a statement, and the parameters that it always has."""
    compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
    return str(compiled), compiled.params


_DIALECT = dialect()  # type: ignore[no-untyped-call]
