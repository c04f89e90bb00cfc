"""Working behind a pooler such as PgBouncer, which gives a session of PostgreSQL to one client after another.

With transaction pooling, whatever a client sets for its session is lost with its transaction, or met by another client,
and so are prepared statements. PgBouncer even refuses a connection with start-up options. So, where there is a pooler,
each transaction sets what it needs for itself, in the message that begins it: that takes no further round trip. Without
one, PostgreSQL gets the settings once, when a process connects.
"""

from collections.abc import Mapping
from secrets import randbits
from typing import Any

import psycopg
from sqlalchemy import Engine, event, text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.interfaces import DBAPIConnection

#: The driver in a URL of SQLAlchemy whose engine may be behind a pooler.
DRIVER = "postgresql+holdfast"

#: How poolers say that they take no start-up options: PgBouncer and Amazon RDS Proxy.
REFUSALS = ("unsupported startup parameter", "command-line options")

#: The first version of PostgreSQL that has it.
HAS_TRANSACTION_TIMEOUT = 170_000

#: The key, in the `info` of a connection that leads to a pooler, of the message that begins a transaction.
_BEGIN = "holdfast_begin"


class Dialect(PGDialect_psycopg):
    """SQLAlchemy's dialect for psycopg, with transactions that begin with their settings behind a pooler."""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: DBAPIConnection) -> None:
        begin = dbapi_connection.info.get(_BEGIN)
        if begin:
            dbapi_connection.cursor().execute(begin)


registry.register("postgresql.holdfast", __name__, Dialect.__name__)


def set_up(engine: Engine, settings: Mapping[str, str], transaction_milliseconds: int | None = None) -> None:
    """Have all transactions of an engine run with these settings, whether or not there is a pooler.

    No transaction takes longer than `transaction_milliseconds`, if PostgreSQL is 17 or newer.
    """
    connecting = _Connecting(settings, transaction_milliseconds)
    event.listen(engine, "do_connect", connecting.connect)
    # Before SQLAlchemy's own listener, which executes statements.
    event.listen(engine, "connect", connecting.detect_pooler, insert=True)


def is_pooled(engine: Engine) -> bool:
    """Return whether there is a pooler between this engine and PostgreSQL. It connects."""
    with engine.connect() as connection:
        return bool(connection.info.get(_BEGIN))


def lead_to_same_database(direct: Engine, other: Engine) -> bool:
    """Return whether two engines lead to the same database: a lock that the one holds is seen by the other.

    Names and addresses would not tell, as a pooler has its own. Between `direct` and PostgreSQL is no pooler.
    """
    mark = {"high": randbits(31), "low": randbits(31)}
    with direct.connect() as holder, other.connect() as observer:
        holder.execute(_MARK, mark)
        # The lock is of the transaction, which ends with the connection's use.
        return bool(observer.execute(_IS_MARKED, mark).scalar_one())


_MARK = text("SELECT pg_advisory_xact_lock(:high, :low)")
_IS_MARKED = text("""
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND (classid, objid, objsubid) = (:high, :low, 2)
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    )
""")


def is_between(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a connection leads to a pooler: then it names another process than the one that it uses."""
    return connection.execute("SELECT pg_backend_pid()").fetchone() != (connection.info.backend_pid,)


class _Connecting:
    """Opens the connections of one engine."""

    def __init__(self, settings: Mapping[str, str], transaction_milliseconds: int | None) -> None:
        self._timeout = f"transaction_timeout = {transaction_milliseconds}" if transaction_milliseconds else ""
        self._options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        # Statements without parameters go in one message.
        self._begin = "; ".join(["BEGIN", *(f"SET LOCAL {name} = '{value}'" for name, value in settings.items())])
        self._takes_options = True

    def connect(self, dialect: Any, _: Any, arguments: Any, parameters: dict[str, Any]) -> Any:
        """Connect with the settings as start-up options, after those of the URL, or without where they are refused."""
        if self._takes_options:
            options = " ".join(filter(None, [parameters.get("options"), self._options]))
            try:
                return dialect.connect(*arguments, **(parameters | {"options": options}))
            except psycopg.OperationalError as error:
                if not any(refusal in str(error) for refusal in REFUSALS):
                    raise
                self._takes_options = False
        return dialect.connect(*arguments, **parameters)

    def detect_pooler(self, connection: psycopg.Connection[Any], record: Any) -> None:
        """Find out whether a connection leads to a pooler, and complete its settings."""
        connection.autocommit = True
        # It is no start-up option, because an older PostgreSQL would refuse to connect.
        timeout = self._timeout if connection.info.server_version >= HAS_TRANSACTION_TIMEOUT else ""
        if self._takes_options and not is_between(connection):
            record.info.pop(_BEGIN, None)
            if timeout:
                connection.execute(f"SET {timeout}")
            connection.autocommit = False
        else:
            # psycopg is left in autocommit mode: it would begin each transaction in a round trip of its own.
            record.info[_BEGIN] = f"{self._begin}; SET LOCAL {timeout}" if timeout else self._begin
            connection.prepare_threshold = None
