"""A real PostgreSQL and a real Redis for the whole run, and an empty database for each test."""

import base64
import faulthandler
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

# Set before anything reads the settings, so that no test sees what `bin/up` wrote on this machine.
HOME = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
os.environ["HOLDFAST_HOME"] = str(HOME)
# What the processes of a test leave behind when they are killed is deleted with the rest.
os.environ["TMPDIR"] = str(HOME)
# Most tests are not about who sends a request.
os.environ["AUTH"] = "none"
# Those that are send hundreds of wrong credentials from one address.
os.environ["RATE_LIMIT_FAILED_AUTH"] = "0"
# A key that protects nothing.
os.environ["PII_KEYS"] = f"test:{base64.b64encode(bytes(32)).decode()}"
# The servers that tests call are on this machine.
os.environ["WEBHOOK_PRIVATE_NETWORKS"] = "127.0.0.0/8"

import httpx  # noqa: E402
import psycopg  # noqa: E402
import pytest  # noqa: E402
from sqlalchemy import Engine, delete, event  # noqa: E402
from sqlalchemy.orm import Session, sessionmaker  # noqa: E402

from deploy.embedded import PostgreSQL, RedisServer  # noqa: E402
from domain import outbox  # noqa: E402
from domain.outbox.table import routes_in_force  # noqa: E402
from domain.runtime import database  # noqa: E402
from domain.runtime.settings import Settings  # noqa: E402
from migrations.main import migrate  # noqa: E402
from tests.support.api_process import Served, serving  # noqa: E402
from tests.support.builders import ROUTES  # noqa: E402
from tests.support.outbox import relaying  # noqa: E402
from tests.support.scheduling import Scheduling  # noqa: E402
from worker.relay.relay import Relay  # noqa: E402

#: No test stops the machine, and a server that is killed needs no fsync. Little of what is deleted stays on disk.
CONFIGURATION = ("fsync = off", "full_page_writes = off", "max_wal_size = '256MB'")

#: A test run that does not end within this time after its last test shows its threads, and fails.
EXIT_SECONDS = 15.0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """The tests of `bin/test` are handed out in a way that goes on if a process of the run dies."""
    return Scheduling(config, log) if config.option.dist == "loadgroup" else None


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a failed test at once, as a run that is stopped has no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} failed ({report.when})", flush=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    # A process that pytest-xdist has started waits for the others, and is ended with them.
    if not hasattr(config, "workerinput"):
        faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=2)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL(HOME / "postgresql")
    with psycopg.connect(server.url, autocommit=True) as connection:
        for setting in CONFIGURATION:
            connection.execute(f"ALTER SYSTEM SET {setting}")
        connection.execute("SELECT pg_reload_conf()")
    yield server
    server.stop("immediate")


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    server = RedisServer(HOME / "redis")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def settings(postgresql: PostgreSQL, redis: RedisServer) -> Settings:
    os.environ["DATABASE_URL"] = postgresql.url
    os.environ["REDIS_URL"] = redis.url
    migrate()
    return Settings.load()


@pytest.fixture(scope="session")
def engine(settings: Settings) -> Iterator[Engine]:
    engine = database.connect(settings, connections=70)
    event.listen(engine, "connect", allow_open_transactions)
    yield engine
    engine.dispose()


def allow_open_transactions(connection: psycopg.Connection[object], _: object) -> None:
    """Tests hold transactions open on purpose, and a busy machine holds them open for longer than workers may."""
    connection.execute("SET idle_in_transaction_session_timeout = '60s'")
    connection.commit()


@pytest.fixture
def db(engine: Engine) -> Iterator[sessionmaker[Session]]:
    """Sessions on an empty, migrated database in which the destinations are registered."""
    empty(engine)
    db = database.sessions(engine)
    with db.begin() as session:
        outbox.register(session, ROUTES.names)
    yield db
    # Processes for several tests start before the database of the next one is emptied, and have routes of their own.
    with db.begin() as session:
        session.execute(delete(routes_in_force))


@pytest.fixture(scope="session")
def served(settings: Settings) -> Iterator[Served]:
    """The API, served for the whole run."""
    with serving() as served:
        yield served


@pytest.fixture
def api(served: Served, db: sessionmaker[Session]) -> Iterator[httpx.Client]:
    """A client of the API on an empty database. Whatever the test sends, the API must log no error of its own."""
    yield served.client
    assert served.faults() == []


#: Tables that are smaller than this are emptied row by row, which is quicker than new files for them and their indexes.
SMALL_BYTES = 1_000_000

#: Delete everything from every table, the referring ones first, and count ids from 1 again.
EMPTY = f"""
DO $$
DECLARE name text;
BEGIN
    SET LOCAL session_replication_role = replica;
    ALTER TABLE audit_entries DISABLE TRIGGER audit_refuse_changes;
    ALTER TABLE audit_seals DISABLE TRIGGER audit_refuse_changes;
    FOREACH name IN ARRAY '{{{",".join(table.name for table in database.metadata.sorted_tables)}}}'::text[] LOOP
        IF pg_relation_size(name::regclass) < {SMALL_BYTES} THEN
            EXECUTE 'DELETE FROM ' || name;
        ELSE
            EXECUTE 'TRUNCATE ' || name || ' CASCADE';
        END IF;
    END LOOP;
    ALTER TABLE audit_entries ENABLE ALWAYS TRIGGER audit_refuse_changes;
    ALTER TABLE audit_seals ENABLE ALWAYS TRIGGER audit_refuse_changes;
    PERFORM setval(oid, 1, false) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace;
END $$
"""


def empty(engine: Engine) -> None:
    """Delete everything from every table, and count ids from 1 again."""
    with engine.begin() as connection:
        connection.exec_driver_sql(EMPTY)


OpenRelay = Callable[..., Relay]


@pytest.fixture
def relay_to(db: sessionmaker[Session]) -> Iterator[OpenRelay]:
    """Open relays with one destination each; for the options see `relaying`. They are closed after the test."""
    with ExitStack() as relays:
        yield lambda shop, **route: relays.enter_context(relaying(db, shop, **route))
