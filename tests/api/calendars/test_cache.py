"""The cache of availability: it is never wrong, and never slow for long, whatever becomes of Redis."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import TypeVar

import pytest
from redis import Redis

from api.calendars import cache as cache_module
from api.calendars.cache import MAX_ENTRY_BYTES, TIMEOUT_SECONDS, Cache
from deploy.embedded import RedisServer
from domain.runtime.settings import Settings
from tests.api.calendars.test_availability import look, steps
from tests.api.calendars.test_calendars import a_calendar, reserve
from tests.support.api_process import serving
from tests.support.builders import Db
from tests.support.waiting import wait_until

T = TypeVar("T")

#: What a test waits for is over within this time, on a machine however busy.
SLACK_SECONDS = 2.0


class Hung:
    """A server that accepts connections, reads what it is sent, and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.connections: list[socket.socket] = []
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self.connections.append(self._listener.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()
        for one in self.connections:
            one.close()


@pytest.fixture
def hung() -> Iterator[Hung]:
    with closing(Hung()) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may stop."""
    server = RedisServer(tmp_path)
    yield server
    server.start()
    server.stop()


def using(url: str, act: Callable[[Cache], Awaitable[T]]) -> T:
    """Do something with a cache in an event loop of its own."""

    async def run() -> T:
        cache = Cache(url)
        try:
            return await act(cache)
        finally:
            await cache.close()

    return asyncio.run(run())


def test_what_is_put_is_kept_for_seconds_and_what_is_large_is_not_kept(settings: Settings) -> None:
    async def act(cache: Cache) -> None:
        await cache.put(b"one", b"\x00\xff")
        await cache.put(b"large", b"x" * (MAX_ENTRY_BYTES + 1))

        assert [await cache.get(key) for key in (b"one", b"large", b"none")] == [b"\x00\xff", None, None]

    using(settings.redis_url, act)
    with Redis.from_url(settings.redis_url) as redis:
        assert 0 < redis.ttl("holdfast:availability:one") <= cache_module.KEPT_SECONDS


@pytest.mark.parametrize("url", ["amqp://127.0.0.1:1/", "amqps://127.0.0.1:1/", "redis://127.0.0.1:1/0"])
def test_without_a_redis_nothing_is_kept(url: str) -> None:
    async def act(cache: Cache) -> bytes | None:
        await cache.put(b"key", b"entry")
        return await cache.get(b"key")

    assert using(url, act) is None


@pytest.mark.timed
def test_a_redis_that_hangs_is_waited_for_once_and_not_by_each_request(hung: Hung) -> None:
    async def act(cache: Cache) -> tuple[float, float]:
        began = time.monotonic()
        at_once = await asyncio.gather(*(cache.get(b"key") for _ in range(50)))
        first, began = time.monotonic() - began, time.monotonic()
        later = [await cache.get(b"key") for _ in range(200)]
        assert set(at_once) == {None} == set(later)
        assert len(hung.connections) <= 50, "some were opened later"
        return first, time.monotonic() - began

    first, later = using(hung.url, act)

    assert TIMEOUT_SECONDS <= first < TIMEOUT_SECONDS + SLACK_SECONDS
    assert later < TIMEOUT_SECONDS, "one of them has waited"


def test_one_request_tries_a_redis_that_was_down_and_the_others_do_not_wait(
    hung: Hung, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(cache: Cache) -> int:
        monkeypatch.setattr(cache_module, "REST_SECONDS", 0.01)
        await cache.get(b"key")
        monkeypatch.setattr(cache_module, "REST_SECONDS", 60)
        before = len(hung.connections)
        await asyncio.sleep(0.02)
        await asyncio.gather(*(cache.get(b"key") for _ in range(50)))
        return len(hung.connections) - before

    assert using(hung.url, act) <= 1


def test_a_redis_that_answers_again_is_used_again_and_late_answers_are_nobodys(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "REST_SECONDS", 0.05)

    async def act(cache: Cache) -> None:
        await cache.put(b"one", b"1")
        await cache.put(b"two", b"2")
        with frozen(own_redis):
            assert await cache.get(b"one") is None
        await until_kept(cache, b"two", b"2")
        assert [await cache.get(key) for key in (b"one", b"two") * 4] == [b"1", b"2"] * 4

    using(own_redis.url, act)


def test_a_redis_that_has_died_and_is_started_again_is_used_again(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "REST_SECONDS", 0.05)

    async def act(cache: Cache) -> None:
        await cache.put(b"key", b"1")
        own_redis.stop()
        assert await cache.get(b"key") is None
        own_redis.start()
        await until_kept(cache, b"key", b"2", put=True)

    using(own_redis.url, act)


async def until_kept(cache: Cache, key: bytes, entry: bytes, *, put: bool = False) -> None:
    deadline = time.monotonic() + 30
    while (found := await cache.get(key)) != entry:
        assert found is None, "it is the answer to something else"
        assert time.monotonic() < deadline, "it is not used again"
        if put:
            await cache.put(key, entry)
        await asyncio.sleep(0.01)


@contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    with Redis.from_url(server.url) as client:
        pid = client.info()["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.timed
def test_the_api_answers_rightly_and_in_time_while_redis_hangs(hung: Hung, settings: Settings, db: Db) -> None:
    with serving(BROKER_URL=hung.url) as served:
        a_calendar(served.client)
        for start in range(10):
            began = time.monotonic()
            assert steps(look(served.client, start, 24)) == [(start, 24, 1)]
            assert time.monotonic() - began < TIMEOUT_SECONDS + SLACK_SECONDS
            reserve(served.client, start, start + 1)
            assert steps(look(served.client, start, 24))[0] == (start, start + 1, 0)
        assert len(hung.connections) > 0, "it was never asked, so this proves nothing"
        assert served.faults() == []


@pytest.mark.slow
def test_the_api_answers_rightly_when_redis_dies_and_comes_back(
    own_redis: RedisServer, settings: Settings, db: Db
) -> None:
    with serving(BROKER_URL=own_redis.url) as served:
        a_calendar(served.client)
        free = [(0, 24, 1)]
        assert steps(look(served.client)) == free
        own_redis.stop()
        assert steps(look(served.client)) == free
        reserve(served.client, 8, 24)
        taken = [(0, 8, 1), (8, 24, 0)]
        assert steps(look(served.client)) == taken
        own_redis.start()

        def is_kept() -> bool:
            assert steps(look(served.client)) == taken
            with Redis.from_url(own_redis.url) as client:
                return bool(client.keys("holdfast:availability:*"))

        wait_until("answers are kept again", is_kept)
        assert steps(look(served.client)) == taken
        assert served.faults() == []
