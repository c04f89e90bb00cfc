"""A connection that is used for too long is cut off, and only that one."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from domain.runtime import database
from domain.runtime.database import IDLE_TRANSACTION_MILLISECONDS
from domain.runtime.database_errors import trouble
from domain.runtime.errors import DatabaseUnavailable
from domain.runtime.settings import ROOT, Settings
from tests.conformance.proxy import Answers
from tests.support.lossy_proxy import LossyProxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timed]

#: The time for which a connection may be used here.
SECONDS = 0.5

Connect = Callable[..., Engine]


@pytest.fixture
def proxy(settings: Settings) -> Iterator[LossyProxy]:
    """A proxy before the database, which can fall silent as a server that vanished does."""
    proxy = LossyProxy(settings.database_url)
    yield proxy
    proxy.close()


@pytest.fixture
def connect(settings: Settings, proxy: LossyProxy) -> Iterator[Connect]:
    """Make engines with one connection each, which goes through the proxy."""
    engines = []

    def connected(*, checked: bool = True) -> Engine:
        through = settings.model_copy(update={"database_url": proxy.url})
        engines.append(database.connect(through, connections=1, checked=checked, transaction_seconds=SECONDS))
        return engines[-1]

    yield connected
    for engine in engines:
        engine.dispose()


def answers(engine: Engine) -> bool:
    with engine.connect() as connection:
        return connection.execute(text("SELECT true")).scalar_one() is True


def seconds_of_a_failure(engine: Engine, statement: str = "SELECT 1") -> float:
    """Execute a statement that must fail because the database is unavailable. Return how long that took."""
    began = time.monotonic()
    with pytest.raises(SQLAlchemyError) as caught, engine.connect() as connection:
        connection.execute(text(statement))
    assert isinstance(trouble(caught.value), DatabaseUnavailable)
    return time.monotonic() - began


def test_a_statement_that_is_not_answered_fails(connect: Connect) -> None:
    engine = connect()
    assert answers(engine)

    assert SECONDS <= seconds_of_a_failure(engine, "SELECT pg_sleep(60)") < 30
    assert answers(engine)


@pytest.mark.parametrize("checked", [True, False])
def test_a_connection_that_was_idle_when_the_server_vanished_is_given_up(
    connect: Connect, proxy: LossyProxy, checked: bool
) -> None:
    engine = connect(checked=checked)
    assert answers(engine)
    proxy.answers = Answers.SILENCE

    # A connection that is tried first takes the time once more: it is replaced, and the server does not answer.
    assert seconds_of_a_failure(engine) < 30

    proxy.answers = Answers.PASS
    assert answers(engine)


def test_the_first_connection_of_all_is_watched_from_its_first_statement(connect: Connect, proxy: LossyProxy) -> None:
    """SQLAlchemy asks the database for its version then, before anybody gets the connection."""
    engine = connect()
    proxy.lose(Answers.SILENCE, statements="pg_catalog.version")

    # PostgreSQL itself ends the session then, but only a PostgreSQL that runs.
    assert seconds_of_a_failure(engine) < IDLE_TRANSACTION_MILLISECONDS / 1_000
    assert answers(engine)


def test_a_fresh_connection_that_breaks_at_once_means_that_the_database_is_unavailable(
    connect: Connect, proxy: LossyProxy
) -> None:
    """A pooler accepts connections even while the server behind it does not."""
    engine = connect()
    assert answers(engine)
    proxy.hang_up()
    proxy.lose(Answers.HANG_UP, 2, statements=";|BEGIN")

    assert seconds_of_a_failure(engine) < 30


def test_a_transaction_that_keeps_asking_is_cut_off_as_well(connect: Connect) -> None:
    engine = connect()

    with pytest.raises(SQLAlchemyError), engine.connect() as connection:
        wait_until("the connection is cut off", lambda: connection.execute(text("SELECT false")).scalar_one())


def test_a_connection_that_is_used_for_a_short_time_again_and_again_is_never_cut_off(connect: Connect) -> None:
    engine = connect()
    until = time.monotonic() + 3 * SECONDS

    with engine.connect() as connection:
        backend = connection.connection.driver_connection
    while time.monotonic() < until:
        with engine.connect() as connection:
            assert connection.connection.driver_connection is backend
            connection.execute(text("SELECT 1"))


def test_a_connection_that_was_lost_in_use_does_not_end_the_watching(connect: Connect) -> None:
    engine = connect()
    with suppress(SQLAlchemyError), engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.close()
        time.sleep(2 * SECONDS)

    assert seconds_of_a_failure(engine, "SELECT pg_sleep(60)") < 30


def test_the_thread_that_watches_ends_and_begins_again_with_the_next_use(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domain.runtime.hung_connections.IDLE_SECONDS", 0.01)
    engine = connect()
    assert answers(engine)
    time.sleep(SECONDS)

    assert seconds_of_a_failure(engine, "SELECT pg_sleep(60)") < 30


#: Waits for a signal that it has blocked, as the supervisors of our processes do, after it has asked a database.
WAITS_FOR_A_SIGNAL = """
import os, signal, sys
from sqlalchemy import text
from domain.runtime import database
from domain.runtime.settings import Settings

with database.connect(Settings.load(), connections=1, transaction_seconds=5).connect() as connection:
    connection.execute(text("SELECT 1"))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.kill(os.getpid(), signal.SIGTERM)
signal.sigwait([signal.SIGTERM])
"""


def test_the_thread_that_watches_takes_no_signal_for_which_another_one_waits(settings: Settings) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WAITS_FOR_A_SIGNAL],
        check=False,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": settings.database_url},
    )

    assert ran.returncode == 0
