"""Behind PgBouncer each transaction has its own settings, and none of them reaches the next client."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from domain.runtime import database, database_errors, poolers
from domain.runtime.database import IDLE_TRANSACTION_MILLISECONDS
from domain.runtime.errors import DatabaseUnavailable
from domain.runtime.settings import Settings
from tests.support.builders import some_settings
from tests.support.pgbouncer import PgBouncer, a_pgbouncer

pytestmark = pytest.mark.slow

SETTINGS = ("TimeZone", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "enable_seqscan")

#: What accepts start-up options, and does nothing with them: PostgreSQL would have no settings at all.
IGNORING = "ignore_startup_parameters = options"


@pytest.fixture(params=["", IGNORING], ids=["options are refused", "options are ignored"])
def pgbouncer(settings: Settings, request: pytest.FixtureRequest) -> Iterator[PgBouncer]:
    with a_pgbouncer(settings.database_url, pool_size=1, more=request.param) as pooler:
        yield pooler


@pytest.fixture
def engine(pgbouncer: PgBouncer) -> Iterator[Engine]:
    engine = database.connect(
        some_settings(database_url=pgbouncer.url),
        connections=3,
        lock_milliseconds=1_234,
        statement_seconds=7,
        by_index=True,
    )
    yield engine
    engine.dispose()


def settings_of(session: Session) -> dict[str, str]:
    return {name: session.execute(text(f"SHOW {name}")).scalar_one() for name in SETTINGS}


def test_each_transaction_has_the_settings_of_its_engine(engine: Engine) -> None:
    assert poolers.is_pooled(engine)
    for _ in range(2):
        with database.sessions(engine).begin() as session:
            found = settings_of(session)

        assert found == {
            "TimeZone": "UTC",
            "lock_timeout": "1234ms",
            "statement_timeout": "7s",
            "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_MILLISECONDS // 1_000}s",
            "enable_seqscan": "off",
        }


def test_no_setting_reaches_the_next_client_of_the_same_connection(pgbouncer: PgBouncer, engine: Engine) -> None:
    with psycopg.connect(pgbouncer.url) as other:
        before = {name: other.execute(f"SHOW {name}").fetchone() for name in SETTINGS}
    with database.sessions(engine).begin() as session:
        used = session.execute(text("SELECT pg_backend_pid()")).scalar_one()

    with psycopg.connect(pgbouncer.url) as other:
        assert other.execute("SELECT pg_backend_pid()").fetchone() == (used,)
        assert {name: other.execute(f"SHOW {name}").fetchone() for name in SETTINGS} == before


def test_statements_that_are_repeated_on_changing_connections_are_not_prepared(settings: Settings) -> None:
    """psycopg prepares a statement at its sixth execution. Another connection of PostgreSQL would not know it."""
    with a_pgbouncer(settings.database_url, pool_size=3) as pooler:
        engine = database.connect(some_settings(database_url=pooler.url), connections=6)
        db = database.sessions(engine)

        def repeat(_: int) -> int:
            for _ in range(20):
                with db.begin() as session:
                    session.execute(text("SELECT count(*) FROM items")).scalar_one()
                    session.execute(text("SELECT pg_sleep(0.001)"))
            return 20

        with ThreadPoolExecutor(6) as threads:
            assert sum(threads.map(repeat, range(6))) == 120
        engine.dispose()


def test_a_rollback_ends_the_transaction_for_the_next_client_too(pgbouncer: PgBouncer, engine: Engine) -> None:
    db = database.sessions(engine)
    with pytest.raises(ZeroDivisionError), db.begin() as session:
        session.execute(text("CREATE TABLE never (id integer)"))
        raise ZeroDivisionError
    with db.begin() as session:
        assert session.execute(text("SELECT to_regclass('never')")).scalar_one() is None


def test_a_pooler_that_is_gone_is_an_outage_until_it_is_back(pgbouncer: PgBouncer, engine: Engine) -> None:
    db = database.sessions(engine)
    with db.begin() as session:
        session.execute(text("SELECT 1"))

    pgbouncer.stop()
    with pytest.raises(OperationalError) as down, db.begin() as session:
        session.execute(text("SELECT 1"))
    pgbouncer.start()

    assert isinstance(database_errors.trouble(down.value), DatabaseUnavailable)
    with db.begin() as session:
        assert settings_of(session)["lock_timeout"] == "1234ms"


def test_without_a_pooler_a_session_is_set_once_and_no_transaction_again(
    settings: Settings,
) -> None:
    engine = database.connect(settings, connections=1, lock_milliseconds=1_234)
    assert not poolers.is_pooled(engine)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        assert (driver.autocommit, driver.prepare_threshold) == (False, 5)
        assert driver.execute("SHOW lock_timeout").fetchone() == ("1234ms",)
        driver.rollback()
        assert driver.execute("SHOW lock_timeout").fetchone() == ("1234ms",)
    engine.dispose()


def test_a_transaction_takes_as_many_round_trips_as_without_a_pooler(settings: Settings, tmp_path: Path) -> None:
    with a_pgbouncer(settings.database_url) as pooler:
        directly = round_trips(settings.database_url, tmp_path / "directly")
        through = round_trips(pooler.url, tmp_path / "through")

    assert (directly, through) == (4, 4), "BEGIN, two statements and COMMIT"


def round_trips(url: str, log: Path) -> int:
    """Return how many messages that want an answer are sent in a transaction with two statements."""
    engine = database.connect(some_settings(database_url=url), connections=1)
    with log.open("wb") as file, engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.pgconn.trace(file.fileno())
        with connection.begin():
            connection.execute(text("SELECT 1"))
            connection.execute(text("SELECT 2"))
        driver.pgconn.untrace()
    engine.dispose()
    return sum(line.split("\t")[1:4:2] in (["F", "Query"], ["F", "Sync"]) for line in log.read_text().splitlines())
