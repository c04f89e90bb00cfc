"""The API while its database or its broker is down or busy: its answers say so, and it recovers by itself."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil
import psycopg
import pytest
from sqlalchemy import Engine, text

from api.http.problems import MEDIA_TYPE
from deploy.embedded import PostgreSQL, RedisServer
from domain.runtime.settings import HOME, ROOT, Settings
from tests.support.api_process import Served, serving
from tests.support.builders import Db, an_item, available
from tests.support.waiting import wait_until, wait_until_blocked

pytestmark = pytest.mark.slow


@dataclass
class Environment:
    """An API with a database and a Redis of its own."""

    postgresql: PostgreSQL
    redis: RedisServer
    served: Served

    @property
    def api(self) -> httpx.Client:
        return self.served.client

    def processes(self) -> set[int]:
        root = psutil.Process(self.served.process.pid)
        return {root.pid, *(child.pid for child in root.children(recursive=True))}

    @contextmanager
    def without_database(self) -> Iterator[None]:
        self.postgresql.stop("immediate")
        try:
            yield
        finally:
            self.postgresql.start()

    @contextmanager
    def without_redis(self) -> Iterator[None]:
        self.redis.stop()
        try:
            yield
        finally:
            self.redis.start()


@pytest.fixture(scope="module")
def environment(settings: Settings) -> Iterator[Environment]:
    home = HOME / "outages"
    postgresql, redis = PostgreSQL(home / "postgresql"), RedisServer(home / "redis")
    variables = {"DATABASE_URL": postgresql.url, "REDIS_URL": redis.url}
    subprocess.run([ROOT / "bin" / "migrate"], env=os.environ | variables, check=True, capture_output=True)
    with serving(**variables) as served:
        yield Environment(postgresql, redis, served)
    redis.stop()
    postgresql.stop("immediate")


@pytest.fixture
def hold(environment: Environment) -> str:
    """The path of a new hold of one unit of the item 1, which has many units."""
    if not environment.api.get("/items/by-id/1").is_success:
        environment.api.post("/items", json={"sku": "A", "name": "A", "available_quantity": 1_000}).raise_for_status()
    return environment.api.post("/reservations", json={"item_id": 1, "quantity": 1}).headers["Location"]


def test_while_the_database_is_down_every_handler_answers_503(environment: Environment, hold: str) -> None:
    a_hold = {"item_id": 1, "quantity": 1}

    with environment.without_database():
        answers = [
            environment.api.post("/items", json={"sku": "B", "name": "B"}),
            environment.api.get("/items"),
            environment.api.get("/items/by-id/1"),
            environment.api.patch("/items/by-id/1", json={"name": "B"}),
            environment.api.post("/reservations", json=a_hold),
            environment.api.post("/reservations", json=a_hold, headers={"Idempotency-Key": "k"}),
            environment.api.get("/reservations"),
            environment.api.get(hold),
            environment.api.post(f"{hold}/confirm"),
            environment.api.post(f"{hold}/cancel", headers={"Idempotency-Key": "k"}),
        ]

    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert answer.headers["Content-Type"] == MEDIA_TYPE
        assert answer.json()["type"] == "/problems/database-unavailable"
        assert int(answer.headers["Retry-After"]) == answer.json()["retry_after"] > 0
    assert environment.api.get(hold).json()["status"] == "PENDING"
    assert environment.served.faults() == []


def test_while_the_database_is_down_the_api_is_alive_but_not_ready(environment: Environment) -> None:
    with environment.without_database():
        live, ready = environment.api.get("/health/live"), environment.api.get("/health/ready")

    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert ready.json()["database"].startswith("unreachable")
    assert int(ready.headers["Retry-After"]) > 0


def test_when_the_database_is_back_the_same_processes_serve_again(environment: Environment, hold: str) -> None:
    processes = environment.processes()
    with environment.without_database():
        assert _made(environment.api) is None

    made = wait_until("a reservation is made", lambda: _made(environment.api))

    assert "Idempotency-Replayed" not in made.headers
    assert environment.api.post(f"{hold}/confirm").status_code == 200
    assert environment.api.get("/health/ready").status_code == 200
    assert environment.processes() == processes


def test_an_outage_of_the_database_between_two_requests_is_not_noticed(environment: Environment, hold: str) -> None:
    with environment.without_database():
        pass

    answers = [
        _reserve(environment.api, "unnoticed"),
        environment.api.get(hold),
        environment.api.get("/items"),
        environment.api.get(hold),
    ]

    assert [answer.status_code for answer in answers] == [201, 200, 200, 200]


def test_a_request_that_the_database_did_not_answer_may_be_sent_again(environment: Environment, hold: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        with psycopg.connect(environment.postgresql.url, autocommit=True) as locking, pytest.raises(psycopg.Error):
            with locking.transaction():
                locking.execute("SELECT FROM items FOR UPDATE")
                asked = threads.submit(_reserve, environment.api, "interrupted")
                wait_until("it waits for the item", lambda: _blocked(environment.postgresql))
                with environment.without_database():
                    lost = asked.result()
        again = wait_until("a reservation is made", lambda: _made(environment.api, "interrupted"))

    assert (lost.status_code, int(lost.headers["Retry-After"])) == (503, lost.json()["retry_after"])
    assert "Idempotency-Replayed" not in again.headers
    assert environment.served.faults() == []


def test_without_redis_requests_succeed_and_readiness_only_warns(environment: Environment, hold: str) -> None:
    with environment.without_redis():
        made = environment.api.post("/reservations", json={"item_id": 1, "quantity": 1})
        confirmed = environment.api.post(f"{hold}/confirm")
        ready = environment.api.get("/health/ready")

    assert (made.status_code, confirmed.status_code) == (201, 200)
    assert (ready.status_code, ready.json()["status"], ready.json()["database"]) == (200, "ok", "ok")
    assert ready.json()["broker"].startswith("unreachable")
    wait_until("Redis is reachable", lambda: environment.api.get("/health/ready").json()["broker"] == "ok")


def test_an_api_whose_queue_is_full_is_busy_until_it_moves_again(db: Db, engine: Engine, settings: Settings) -> None:
    item = an_item(db, quantity=10)

    def ask() -> httpx.Response:
        return served.client.post("/reservations", json={"item_id": item.id, "quantity": 1})

    with serving(QUEUE_LIMIT="1") as served, ThreadPoolExecutor(6) as threads:
        with engine.begin() as holding:
            # Not the item: requests for a locked item wait beside the queue.
            holding.execute(text("LOCK TABLE reservations IN SHARE MODE"))
            first = threads.submit(ask)
            wait_until_blocked(db)
            others = [threads.submit(ask) for _ in range(5)]
            answered = as_completed(others)
            refused = [next(answered).result() for _ in range(4)]
        queued = next(answered).result()

        assert [answer.status_code for answer in refused] == [503] * 4
        assert {answer.json()["type"] for answer in refused} == {"/problems/busy"}
        assert {int(answer.headers["Retry-After"]) for answer in refused} <= {1, 2, 3}
        assert (first.result().status_code, queued.status_code, ask().status_code) == (201, 201, 201)
        assert available(db, item) == 7


def _reserve(api: httpx.Client, key: str) -> httpx.Response:
    return api.post("/reservations", json={"item_id": 1, "quantity": 1}, headers={"Idempotency-Key": key})


def _made(api: httpx.Client, key: str = "outage") -> httpx.Response | None:
    """Request a reservation. Return the answer, or None if it was 503."""
    answer = _reserve(api, key)
    assert answer.status_code in (201, 503), answer.text
    return answer if answer.is_success else None


def _blocked(postgresql: PostgreSQL) -> bool:
    with psycopg.connect(postgresql.url) as connection:
        blocked = connection.execute("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return blocked.fetchone() is not None
