"""Direct connections: one that belongs to one thread, is in no pool, and is never replaced by another one.

A lock of a session lasts as long as its connection. So its owner has to know when the connection breaks, and between
the two must be no pooler, which gives the sessions of PostgreSQL to one client after the other.
"""

from sqlalchemy import Connection, NullPool, create_engine, func, make_url, select

from domain.runtime import poolers
from domain.runtime.database import CONNECT_TIMEOUT_SECONDS, KEEPALIVES

#: PostgreSQL ends the session of a machine that has vanished within about 11 s. Otherwise it would keep its locks for
#: as long as the system does, which is hours.
SESSION_SETTINGS = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}


class PoolerBetween(Exception):
    """Raised when the other end of a connection is a pooler such as PgBouncer, and not PostgreSQL itself."""


def open_direct(url: str, *, application_name: str, lock_milliseconds: int = 0) -> Connection:
    """Open a connection on which each statement is a transaction. The caller closes it.

    Its statements wait for locks for `lock_milliseconds` at most, or without end if that is 0. It may be idle for ever.
    Raises PoolerBetween.
    """
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        # No `options`: a pooler would refuse the connection because of them, and would not be recognised.
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": application_name,
            **KEEPALIVES,
        },
    )
    connection = engine.connect()
    try:
        _require_postgresql(connection)
        _set(connection, {"lock_timeout": str(lock_milliseconds), "idle_session_timeout": "0", **SESSION_SETTINGS})
    except BaseException:
        connection.close()
        raise
    return connection


def _require_postgresql(connection: Connection) -> None:
    """Raise PoolerBetween if the other end is a pooler."""
    driver = connection.connection.driver_connection
    assert driver is not None
    if poolers.is_between(driver):
        raise PoolerBetween


def _set(connection: Connection, settings: dict[str, str]) -> None:
    connection.execute(select(*(func.set_config(name, value, False) for name, value in settings.items())))
