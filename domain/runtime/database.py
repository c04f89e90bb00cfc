"""PostgreSQL: connecting, the clock, bulk writing. It is the only server that the domain speaks to."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from sqlalchemy import (
    JSON,
    ColumnElement,
    Engine,
    MetaData,
    Table,
    TableValuedAlias,
    Text,
    any_,
    bindparam,
    cast,
    column,
    create_engine,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.types import TypeEngine

from domain.runtime import hung_connections, poolers
from domain.runtime.database_errors import trouble
from domain.runtime.errors import DatabaseUnavailable, OutcomeUnknown
from domain.runtime.settings import Settings

#: Every constraint has a name that says what it guards: `alembic` needs it to drop one,
#: and an operator to find it in a log.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: A database that gives no connection within this time counts as down.
CONNECT_TIMEOUT_SECONDS = 3

#: No transaction waits for the network, so a lock that is held for longer is held by something that hangs.
LOCK_TIMEOUT_MILLISECONDS = 5_000

#: A connection that is cut off silently is noticed within this time, in seconds and milliseconds.
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}

#: No transaction of ours waits for anything but PostgreSQL. If a process is frozen within one, PostgreSQL ends it
#: after this time, so that its locks do not block others for longer.
IDLE_TRANSACTION_MILLISECONDS = 5_000


#: That is not seen within a pipeline, between two of its statements. So a transaction as a whole has a limit as well,
#: this much after the time at which its own process cuts it off.
FROZEN_MILLISECONDS = 2_000


def connect(
    settings: Settings,
    *,
    connections: int,
    wait_seconds: float = CONNECT_TIMEOUT_SECONDS,
    checked: bool = True,
    statement_seconds: int = 0,
    transaction_seconds: float | None = None,
    lock_milliseconds: int = LOCK_TIMEOUT_MILLISECONDS,
    by_index: bool = False,
) -> Engine:
    """Return an engine with at most `connections` connections, which replaces broken ones by itself.

    While all of them are in use, a caller waits for one, but `wait_seconds` at the most.
    With `checked`, each connection is tried before it is used. Without, that round trip is saved, and a caller that
    gets a broken connection has to try again. No statement takes longer than `statement_seconds`, unless that is 0,
    or waits for a lock for longer than `lock_milliseconds`. A connection that is used for longer than
    `transaction_seconds` at a time is cut off, so that nobody waits for a database that hangs. With `by_index`,
    PostgreSQL uses an index wherever there is one: it takes a table that was vacuumed while empty for empty, and
    keeps the plans that it made then.
    """
    engine = create_engine(
        make_url(settings.database_url).set(drivername=poolers.DRIVER),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=wait_seconds,
        # An engine that is watched tries its connections itself: a trial may hang as well.
        pool_pre_ping=checked and transaction_seconds is None,
        # Otherwise the parameters would be in the message of every error, and so in the logs.
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": "holdfast",
            **KEEPALIVES,
        },
    )
    poolers.set_up(
        engine,
        {
            "timezone": "UTC",
            "lock_timeout": f"{lock_milliseconds}",
            "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_MILLISECONDS}",
            "statement_timeout": f"{statement_seconds * 1_000}",
            **({"enable_seqscan": "off"} if by_index else {}),
        },
        # PostgreSQL ends what this process should have ended, and could not, as it is frozen.
        None if transaction_seconds is None else int(transaction_seconds * 1_000) + FROZEN_MILLISECONDS,
    )
    if transaction_seconds is not None:
        hung_connections.watch(engine, transaction_seconds, checked=checked)
    return engine


def sessions(engine: Engine) -> sessionmaker[Session]:
    """Return a factory of sessions."""
    return sessionmaker(engine, expire_on_commit=False)


#: The database's clock, for conditions that an index answers. `clock_timestamp()` may differ from row to row, so
#: PostgreSQL would compare it with every entry of the index.
CLOCK = func.statement_timestamp()


#: Has the statements of a transaction read by indexes and in their order, wherever that is possible: while statistics
#: are old, PostgreSQL takes a large table for an empty one, and may read and sort all of it.
READ_IN_INDEX_ORDER = select(
    *(
        func.set_config(setting, "off", True)
        for setting in (
            "enable_seqscan",
            "enable_bitmapscan",
            "enable_sort",
            "enable_incremental_sort",
            "enable_hashjoin",
            "enable_mergejoin",
            # A page itself is sorted all the same. Before PostgreSQL 18 that seems so expensive that it is compiled.
            "jit",
        )
    )
)


def now(session: Session) -> datetime:
    """Return the database's clock at this moment, not at the start of the transaction."""
    moment: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def lock_at_most(session: Session, milliseconds: int) -> None:
    """Let the statements of this transaction wait for locks for that long at most."""
    session.execute(text(f"SET LOCAL lock_timeout = {milliseconds}"))


def read_by_index(session: Session) -> None:
    """Let PostgreSQL use an index wherever there is one, until the transaction ends: it may take a table for empty.

    What is read page by page uses `READ_IN_INDEX_ORDER`.
    """
    session.execute(_BY_INDEX)


_BY_INDEX = select(func.set_config("enable_seqscan", "off", True))


def commit(session: Session) -> None:
    """Commit. Raises OutcomeUnknown if the connection breaks before PostgreSQL has answered."""
    try:
        session.commit()
    except DBAPIError as error:
        if isinstance(trouble(error), DatabaseUnavailable):
            raise OutcomeUnknown from error
        raise


def commit_without_waiting(session: Session) -> None:
    """Let the commit of this transaction return before it is on disk: a crash may undo it."""
    session.execute(text("SET LOCAL synchronous_commit = off"))


def copy(session: Session, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows by COPY, within the transaction of the session.

    It takes 17 µs a row, where the kinds of INSERT take 33 to 61: so one process can commit thousands of
    reservations a second.
    """
    statement = f"COPY {table.name} ({', '.join(columns)}) FROM STDIN"
    try:
        with driver_of(session).cursor() as cursor, cursor.copy(statement) as into:
            for row in rows:
                into.write_row(row)
    except psycopg.Error as error:
        raise raised_by_driver(session, error) from error


def driver_of(session: Session) -> psycopg.Connection[Any]:
    """Return psycopg's connection of a session, for what SQLAlchemy can't do."""
    driver: psycopg.Connection[Any] | None = session.connection().connection.driver_connection
    assert driver is not None
    return driver


def raised_by_driver(session: Session, error: psycopg.Error) -> Exception:
    """Return the error that SQLAlchemy would have raised for one of psycopg's."""
    dialect = session.connection().dialect
    return DBAPIError.instance(
        None, None, error, psycopg.Error, connection_invalidated=invalidate_if_lost(session), dialect=dialect
    )


def invalidate_if_lost(session: Session) -> bool:
    """Give up the connection of a session if it can't even be rolled back. Return whether it can't.

    SQLAlchemy does so when it executes statements itself. What it does not know to be lost is never used again, and
    never replaced either.
    """
    connection = session.connection()
    if connection.invalidated:
        return True
    driver = driver_of(session)
    usable = (TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR)
    is_lost = driver.info.transaction_status not in usable or driver.pgconn.pipeline_status != PipelineStatus.OFF
    if is_lost:
        connection.invalidate()
    return is_lost


def arrays(name: str, /, **columns: type[TypeEngine[Any]] | TypeEngine[Any]) -> TableValuedAlias:
    """Return a table of that name made from arrays, one a column: a bulk statement then has a few parameters only.

    The values come from `lists`. Use: `_moves = arrays("moves", item_id=BigInteger, quantity=BigInteger)`.
    """
    parameters = (cast(bindparam(f"{name}_{column}"), ARRAY(kind)) for column, kind in columns.items())
    shape = (column(name, kind) for name, kind in columns.items())
    return func.unnest(*parameters).table_valued(*shape, name=name).render_derived(name)


def lists(table: TableValuedAlias, /, **columns: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Return the parameters of a statement with a table from `arrays`: for each of its columns a list, all as long."""
    return {f"{table.name}_{column}": values for column, values in columns.items()}


def is_given(of: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return that a column has one of the values of the parameter `ids`, a list."""
    return of == any_(cast(bindparam("ids"), ARRAY(of.type)))


def records(name: str, /, **columns: type[TypeEngine[Any]] | TypeEngine[Any]) -> TableValuedAlias:
    """Return a table of that name made from one parameter, for many rows of text.

    The parameter has the name of the table; its value is a list of rows as JSON. psycopg turns a list of texts into an
    array in Python, character by character; JSON is encoded in C.
    """
    shape = (column(name, kind) for name, kind in columns.items())
    given = cast(bindparam(name, type_=Text), JSON)
    return func.json_to_recordset(given).table_valued(*shape, name=name).render_derived(name, with_types=True)


def like(pattern: str) -> str:
    """Return a pattern with `*` for any characters as one of LIKE, whose escape character is a backslash."""
    return re.sub(r"([\\%_])", r"\\\1", pattern).replace("*", "%")
