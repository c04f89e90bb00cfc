"""The API while something that it needs is down or busy: it says so, and serves again by itself."""

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
from sqlalchemy import Engine, select

from api.http.problems import MEDIA_TYPE
from deploy.embedded import PostgreSQL, RedisServer
from domain.items.table import items
from domain.runtime.settings import HOME, ROOT, Settings
from tests.support.builders import Db, an_item, available
from tests.support.serving import Served, serving, wait_until, wait_until_blocked


@dataclass
class House:
    """An API, and a database and a Redis that only it uses."""

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
def house(settings: Settings) -> Iterator[House]:
    home = HOME / "outages"
    postgresql, redis = PostgreSQL(home / "postgresql"), RedisServer(home / "redis")
    environment = {"DATABASE_URL": postgresql.url, "REDIS_URL": redis.url}
    subprocess.run([ROOT / "bin" / "migrate"], env=os.environ | environment, check=True, capture_output=True)
    with serving(**environment) as served:
        yield House(postgresql, redis, served)
    redis.stop()
    postgresql.stop("immediate")


@pytest.fixture
def hold(house: House) -> str:
    """The address of a hold of one unit of the item 1, of which there are many."""
    if not house.api.get("/items/1").is_success:
        house.api.post("/items", json={"sku": "A", "name": "A", "available_quantity": 1_000}).raise_for_status()
    return house.api.post("/reservations", json={"item_id": 1, "quantity": 1}).headers["Location"]


def test_while_the_database_is_down_every_door_says_so(house: House, hold: str) -> None:
    a_hold = {"item_id": 1, "quantity": 1}

    with house.without_database():
        answers = [
            house.api.post("/items", json={"sku": "B", "name": "B"}),
            house.api.get("/items"),
            house.api.get("/items/1"),
            house.api.patch("/items/1", json={"name": "B"}),
            house.api.post("/reservations", json=a_hold),
            house.api.post("/reservations", json=a_hold, headers={"Idempotency-Key": "k"}),
            house.api.get("/reservations"),
            house.api.get(hold),
            house.api.post(f"{hold}/confirm"),
            house.api.post(f"{hold}/cancel", headers={"Idempotency-Key": "k"}),
        ]

    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert answer.headers["Content-Type"] == MEDIA_TYPE
        assert answer.json()["type"] == "urn:holdfast:problem:database-unavailable"
        assert int(answer.headers["Retry-After"]) == answer.json()["retry_after"] > 0
    assert house.api.get(hold).json()["status"] == "PENDING"
    assert house.served.faults() == []


def test_while_the_database_is_down_the_api_is_alive_but_not_ready(house: House) -> None:
    with house.without_database():
        live, ready = house.api.get("/health/live"), house.api.get("/health/ready")

    assert (live.status_code, live.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert ready.json()["database"].startswith("unreachable")
    assert int(ready.headers["Retry-After"]) > 0


def test_when_the_database_is_back_the_same_processes_serve_again(house: House, hold: str) -> None:
    processes = house.processes()
    with house.without_database():
        assert _made(house.api) is None

    made = wait_until("a reservation is made", lambda: _made(house.api))

    assert "Idempotency-Replayed" not in made.headers
    assert house.api.post(f"{hold}/confirm").status_code == 200
    assert house.api.get("/health/ready").status_code == 200
    assert house.processes() == processes


def test_nobody_notices_that_the_database_was_away_while_nobody_asked(house: House, hold: str) -> None:
    with house.without_database():
        pass

    answers = [_ask(house.api, "unnoticed"), house.api.get(hold), house.api.get("/items"), house.api.get(hold)]

    assert [answer.status_code for answer in answers] == [201, 200, 200, 200]


def test_a_request_that_the_database_leaves_in_the_lurch_may_be_sent_again(house: House, hold: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        with psycopg.connect(house.postgresql.url, autocommit=True) as locking, pytest.raises(psycopg.Error):
            with locking.transaction():
                locking.execute("SELECT FROM items FOR UPDATE")
                asked = threads.submit(_ask, house.api, "lurch")
                wait_until("it waits for the item", lambda: _blocked(house.postgresql))
                with house.without_database():
                    lost = asked.result()
        again = wait_until("a reservation is made", lambda: _made(house.api, "lurch"))

    assert (lost.status_code, lost.headers["Retry-After"]) == (503, "2")
    assert "Idempotency-Replayed" not in again.headers
    assert house.served.faults() == []


def test_without_redis_requests_succeed_and_readiness_only_warns(house: House, hold: str) -> None:
    with house.without_redis():
        made = house.api.post("/reservations", json={"item_id": 1, "quantity": 1})
        confirmed = house.api.post(f"{hold}/confirm")
        ready = house.api.get("/health/ready")

    assert (made.status_code, confirmed.status_code) == (201, 200)
    assert (ready.status_code, ready.json()["status"], ready.json()["database"]) == (200, "ok", "ok")
    assert ready.json()["broker"].startswith("unreachable")
    wait_until("Redis is heard", lambda: house.api.get("/health/ready").json()["broker"] == "ok")


def test_an_api_whose_queue_is_full_is_busy_until_it_moves_again(db: Db, engine: Engine, settings: Settings) -> None:
    item = an_item(db, quantity=10)

    def ask() -> httpx.Response:
        return served.client.post("/reservations", json={"item_id": item.id, "quantity": 1})

    with serving(QUEUE_LIMIT="1") as served, ThreadPoolExecutor(6) as threads:
        with engine.begin() as holding:
            holding.execute(select(items.c.id).where(items.c.id == item.id).with_for_update())
            first = threads.submit(ask)
            wait_until_blocked(db)
            others = [threads.submit(ask) for _ in range(5)]
            answered = as_completed(others)
            refused = [next(answered).result() for _ in range(4)]
        queued = next(answered).result()

        assert [answer.status_code for answer in refused] == [503] * 4
        assert {answer.json()["type"] for answer in refused} == {"urn:holdfast:problem:busy"}
        assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
        assert (first.result().status_code, queued.status_code, ask().status_code) == (201, 201, 201)
        assert available(db, item) == 7


def _ask(api: httpx.Client, key: str) -> httpx.Response:
    return api.post("/reservations", json={"item_id": 1, "quantity": 1}, headers={"Idempotency-Key": key})


def _made(api: httpx.Client, key: str = "outage") -> httpx.Response | None:
    """Ask for a reservation. Return the answer, or None if that is to come back later."""
    answer = _ask(api, key)
    assert answer.status_code in (201, 503), answer.text
    return answer if answer.is_success else None


def _blocked(postgresql: PostgreSQL) -> bool:
    with psycopg.connect(postgresql.url) as connection:
        blocked = connection.execute("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return blocked.fetchone() is not None
