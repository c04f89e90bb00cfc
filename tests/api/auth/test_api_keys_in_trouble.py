"""API keys while they can't be read: one connection hangs, the database is away, or a row can't be used."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy.orm import Session, sessionmaker

from api.auth import api_keys as module
from api.auth.api_keys import ApiKeys
from api.auth.refreshed import Missing
from deploy.embedded import PostgreSQL
from domain.access import Role, api_keys
from domain.runtime import database
from domain.runtime.errors import KeysUnavailable, NotAuthenticated
from domain.runtime.settings import ROOT, Settings
from tests.api.auth.test_api_keys import REVOKED_SECONDS
from tests.support.api_process import Served, serving
from tests.support.lossy_proxy import LossyProxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timed]


@dataclass
class Environment:
    """An API that knows senders by API keys, with a database of its own that it reaches through a proxy."""

    url: str
    proxy: LossyProxy
    served: Served
    db: sessionmaker[Session]

    def status(self, key: str, path: str = "/items") -> int:
        return self.served.client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code

    def create(self, name: str, role: Role = Role.STAFF) -> str:
        with self.db.begin() as session:
            return api_keys.create(session, name, [role], who="ann")

    def revoke(self, name: str) -> None:
        with self.db.begin() as session:
            api_keys.revoke(session, name, who="ann")

    @contextmanager
    def reader(self) -> Iterator[int]:
        """Yield the backend of PostgreSQL that waits to read keys, until the block ends."""
        with psycopg.connect(self.url) as locking, psycopg.connect(self.url, autocommit=True) as watching:
            locking.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
            waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'api_keys'::regclass"
            ((backend,),) = wait_until("the keys are read", lambda: watching.execute(waiting).fetchall())
            yield int(backend)

    def idle_reader(self) -> int:
        """Return the backend that reads keys, at a moment at which it does not."""
        with self.reader() as backend:
            pass
        with psycopg.connect(self.url, autocommit=True) as watching:
            idle = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'idle'"
            wait_until("they have been read", lambda: watching.execute(idle, [backend]).fetchall())
        return backend


@pytest.fixture(scope="module")
def environment(settings: Settings, postgresql: PostgreSQL) -> Iterator[Environment]:
    url = postgresql.create("api_keys")
    subprocess.run([ROOT / "bin" / "migrate"], env=os.environ | {"DATABASE_URL": url}, check=True, capture_output=True)
    proxy = LossyProxy(url)
    engine = database.connect(settings.model_copy(update={"database_url": url}), connections=1)
    with serving(AUTH="token", DATABASE_URL=proxy.url) as served:
        yield Environment(url, proxy, served, database.sessions(engine))
        assert "Traceback" not in served.log.read_text()
    engine.dispose()
    proxy.close()


@contextmanager
def frozen(backend: int) -> Iterator[None]:
    os.kill(backend, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend, signal.SIGCONT)


def wait_until_refused(environment: Environment, key: str) -> None:
    wait_until("it is refused", lambda: environment.status(key) == 401, within=REVOKED_SECONDS)


def test_a_revoked_key_is_refused_in_time_if_the_connection_that_reads_keys_hangs(environment: Environment) -> None:
    key = environment.create("till")
    assert environment.status(key) == 200

    with frozen(environment.idle_reader()):
        environment.revoke("till")
        wait_until_refused(environment, key)
        made_meanwhile = environment.status(environment.create("till"))

    assert made_meanwhile == 200
    assert "database.hangs" in environment.served.logged()


def test_a_revoked_key_is_refused_in_time_if_a_reading_of_keys_hangs(environment: Environment) -> None:
    key = environment.create("desk")
    assert environment.status(key) == 200

    with ExitStack() as stack:
        with environment.reader() as backend:
            stack.enter_context(frozen(backend))
        environment.revoke("desk")
        wait_until_refused(environment, key)


def test_a_row_that_somebody_else_has_locked_keeps_no_process_from_reading_the_others(environment: Environment) -> None:
    locked, revoked = environment.create("locked"), environment.create("revoked")
    with psycopg.connect(environment.url) as locking:
        locking.execute("SELECT 1 FROM api_keys WHERE name = 'locked' FOR UPDATE")
        assert (environment.status(locked), environment.status(revoked)) == (200, 200)

        environment.revoke("revoked")

        wait_until_refused(environment, revoked)
        assert environment.status(locked) == 200


def test_a_row_that_can_not_be_used_keeps_no_process_from_reading_the_others(environment: Environment) -> None:
    key = environment.create("good")
    environment.create("odd")
    with psycopg.connect(environment.url, autocommit=True) as connection:
        connection.execute("UPDATE api_keys SET expires_at = '12020-01-01' WHERE name = 'odd'")

        environment.revoke("good")

        wait_until_refused(environment, key)
        assert environment.status(environment.create("good")) == 200
        connection.execute("UPDATE api_keys SET expires_at = NULL WHERE name = 'odd'")


def test_in_an_outage_of_the_database_known_keys_serve_and_others_are_undecided(environment: Environment) -> None:
    known, revoked = environment.create("pager", Role.OPERATOR), environment.create("lost", Role.OPERATOR)
    assert (environment.status(known, "/metrics"), environment.status(revoked, "/metrics")) == (200, 200)
    environment.served.logged()
    environment.proxy.shut()

    # Made and revoked where the proxy is not in the way: the API can't know it.
    new = environment.create("new", Role.OPERATOR)
    environment.revoke("lost")
    wait_until("it is undecided", lambda: environment.status(new, "/metrics") == 503)
    answer = environment.served.client.get("/metrics", headers={"Authorization": f"Bearer {new}"})
    during = environment.status(known, "/metrics")
    wait_until("a round has failed", lambda: "api_keys.unavailable" in environment.served.log.read_text())
    environment.proxy.open()

    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/keys-unavailable")
    assert during == 200
    wait_until("it is refused", lambda: environment.status(revoked, "/metrics") == 401)
    assert environment.status(new, "/metrics") == 200
    logged = environment.served.logged()
    assert (logged.count("api_keys.unavailable"), logged.count("api_keys.available")) == (1, 1)


@pytest.fixture
def keys(environment: Environment, settings: Settings) -> Iterator[ApiKeys]:
    """Keys as a process reads them."""
    keys = ApiKeys(settings.model_copy(update={"database_url": environment.proxy.url}))
    keys.start()
    yield keys
    keys.stop()


def test_keys_that_were_read_too_long_ago_let_nobody_in(
    environment: Environment, keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = environment.create("old")
    checked = checking(keys, key)
    wait_until("it is known", lambda: checked() == "key:old")
    monkeypatch.setattr(module, "LONGEST_SECONDS", 1.0)
    environment.proxy.shut()

    wait_until("it is undecided", lambda: checked() == "KeysUnavailable")

    environment.proxy.open()
    wait_until("it is known again", lambda: checked() == "key:old")


def checking(keys: ApiKeys, key: str) -> Callable[[], str]:
    """Return what checks a key, and names its sender or the refusal."""

    def checked() -> str:
        try:
            return keys.check(key, again=False).client_id
        except (KeysUnavailable, NotAuthenticated, Missing) as refusal:
            return type(refusal).__name__

    return checked
