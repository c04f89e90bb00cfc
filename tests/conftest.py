"""A real PostgreSQL and a real Redis for the whole run, and an empty database for each test."""

import faulthandler
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

# Before anything reads the settings: no test sees what `bin/up` wrote on this machine.
HOME = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
os.environ["HOLDFAST_HOME"] = str(HOME)
# The servers out there are on this machine.
os.environ["WEBHOOK_PRIVATE_NETWORKS"] = "127.0.0.0/8"

import httpx  # noqa: E402
import pytest  # noqa: E402
from sqlalchemy import Engine, text  # noqa: E402
from sqlalchemy.orm import Session, sessionmaker  # noqa: E402

from deploy.embedded import PostgreSQL, RedisServer  # noqa: E402
from domain import outbox
from domain.outbox.routes import CONFIRMATION, STEPS, Route, Routes  # noqa: E402
from domain.runtime import database  # noqa: E402
from domain.runtime.settings import Settings  # noqa: E402
from migrations.main import migrate  # noqa: E402
from tests.support.outbox import draining  # noqa: E402
from tests.support.serving import Served, serving  # noqa: E402
from worker.relay.relay import Drain  # noqa: E402

#: What events go to in tests that do not say otherwise: nothing delivers them.
ROUTES = Routes(
    [
        Route(name="events", url="null:", events=("booking.*",)),
        Route(name=CONFIRMATION, url="null:", events=tuple(STEPS)),
    ]
)


#: A run that is over ends: a thread that still hangs is shown, and the run fails.
EXIT_SECONDS = 60.0


def pytest_unconfigure() -> None:
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=2)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL(HOME / "postgresql")
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
    yield engine
    engine.dispose()


@pytest.fixture
def db(engine: Engine) -> sessionmaker[Session]:
    """Sessions on an empty, migrated database whose destinations are known."""
    empty(engine)
    db = database.sessions(engine, routes=ROUTES)
    with db.begin() as session:
        outbox.register(session, [route.name for route in ROUTES.destinations])
    return db


@pytest.fixture(scope="session")
def served(settings: Settings) -> Iterator[Served]:
    """The API, served for the whole run."""
    with serving() as served:
        yield served


@pytest.fixture
def api(served: Served, db: sessionmaker[Session]) -> Iterator[httpx.Client]:
    """A client of the API on an empty database. Whatever the test asks, the API must not be at fault."""
    yield served.client
    assert served.faults() == []


def empty(engine: Engine) -> None:
    """Take everything out of every table."""
    names = ", ".join(table.name for table in database.metadata.sorted_tables)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY CASCADE"))


OpenDrain = Callable[..., Drain]


@pytest.fixture
def drain_of(db: sessionmaker[Session]) -> Iterator[OpenDrain]:
    """Open drains of one shop each, for the options see `draining`. They are closed after the test."""
    with ExitStack() as drains:
        yield lambda shop, **route: drains.enter_context(draining(db, shop, **route))
