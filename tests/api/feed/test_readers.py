"""Readers of streams that are slow, idle, too many, or there while the database is not: none disturbs another."""

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from api.auth.gate import Gate
from api.bulkheads import Bulkhead, ClientBulkhead, Limits
from api.feed import streams as module
from api.feed.streams import HEARTBEAT, Streams
from api.feed.tail import StreamedEvent, Tail
from domain import feed
from domain.access import ANONYMOUS, Principal, Role
from domain.feed import FeedEvent, Filter, Page
from domain.runtime.errors import Busy
from domain.runtime.settings import Settings
from tests.domain.feed.test_prune import pruned
from tests.support.broken_tables import missing
from tests.support.builders import Db
from tests.support.feed import EVERYTHING, appended, grown_old, many_events
from tests.support.waiting import wait_until


class Client:
    """The other end of a stream: what has arrived, and whether more is taken."""

    def __init__(self) -> None:
        self.received = b""
        self.messages: list[MutableMapping[str, Any]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.gone = asyncio.Event()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message.get("body"):
            await self.takes.wait()
        self.messages.append(message)
        self.received += message.get("body", b"")

    async def receive(self) -> MutableMapping[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def positions(self) -> list[int]:
        lines = self.received.decode().splitlines()
        return [json.loads(line.removeprefix("data: "))["position"] for line in lines if line.startswith("data: ")]

    @property
    def has_end(self) -> bool:
        return self.messages[-1].get("more_body") is False


class Environment:
    """The streams of one process, on a database."""

    def __init__(self, settings: Settings) -> None:
        self._bulkheads = [
            Bulkhead("tests", settings, Limits(threads=threads, statement_seconds=1), committed=lambda: None)
            for threads in (2, 1)
        ]
        self._pages, tail = self._bulkheads
        self.streams = Streams(Tail(tail), Gate.of(settings))

    async def open(
        self, client: Client, principal: Principal = ANONYMOUS, wanted: Filter = EVERYTHING, after: int | None = 0
    ) -> asyncio.Task[None]:
        pages = ClientBulkhead(self._pages, principal)
        first: Page = await pages.run(lambda session: feed.read(session, wanted, after=after, limit=100))
        response: Any = self.streams.open(pages, wanted, first, None).to_asgi_response(None, None)  # type: ignore[arg-type]
        return asyncio.create_task(response({}, client.receive, client.send))

    def close(self) -> None:
        self.streams.stop()
        for bulkhead in self._bulkheads:
            bulkhead.close()


@pytest.fixture
def environment(settings: Settings, db: Db) -> Iterator[Environment]:
    environment = Environment(settings)
    yield environment
    for bulkhead in environment._bulkheads:
        bulkhead.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within_a_minute() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(within_a_minute())


async def until(what: str, holds: Callable[[], object]) -> None:
    await asyncio.to_thread(wait_until, what, holds)


def test_an_idle_stream_gets_heartbeats_that_are_no_events(
    environment: Environment, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.05)
    client = Client()

    async def test() -> None:
        stream = await environment.open(client)
        await until("heartbeats arrive", lambda: client.received.count(HEARTBEAT) >= 3)
        await asyncio.to_thread(appended, db)
        await until("the event arrives", lambda: client.positions == [1])
        client.gone.set()
        await stream

    run(test)
    assert b"\n\n" not in client.received.partition(b"id:")[0]


def test_a_stream_that_waits_keeps_no_events(environment: Environment, db: Db) -> None:
    appended(db, 50)
    client = Client()

    async def test() -> None:
        stream = await environment.open(client)
        await until("the events have arrived", lambda: len(client.positions) == 50)
        kept = [one for one in gc.get_objects() if isinstance(one, StreamedEvent | FeedEvent)]
        assert len(kept) < 50
        client.gone.set()
        await stream

    run(test)


def test_a_reader_that_takes_nothing_is_cut_off_and_delays_no_other(
    environment: Environment, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_SECONDS", 1.0)
    many_events(db, 3_000)
    slow, healthy = Client(), Client()
    before = module.CUT_OFF._value.get()

    async def test() -> None:
        slow.takes.clear()
        slow_stream = await environment.open(slow)
        healthy_stream = await environment.open(healthy)
        await until("the healthy reader has everything", lambda: healthy.positions == list(range(1, 3_001)))
        await slow_stream
        await asyncio.to_thread(appended, db)
        await until("the healthy reader has what comes", lambda: healthy.positions[-1] == 3_001)
        healthy.gone.set()
        await healthy_stream

    run(test)
    assert slow.positions == [] and not slow.has_end
    assert module.CUT_OFF._value.get() == before + 1


def test_a_slow_reader_gets_everything_from_the_database_once_it_reads_again(
    environment: Environment, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.feed.tail.MOST_BYTES", 5_000)
    client = Client()

    async def test() -> None:
        stream = await environment.open(client)
        await until("it has begun", lambda: client.received)
        client.takes.clear()
        await asyncio.to_thread(many_events, db, 1_000)
        await until("the tail has gone on", lambda: environment.streams._tail.after(0, 1) is None)
        client.takes.set()
        await until("everything has arrived", lambda: len(client.positions) == 1_000)
        client.gone.set()
        await stream

    run(test)
    assert client.positions == list(range(1, 1_001))


def test_streams_end_when_the_process_stops_and_no_other_is_opened(environment: Environment, db: Db) -> None:
    appended(db, 2)
    clients = [Client() for _ in range(5)]

    async def test() -> None:
        opened = [await environment.open(client) for client in clients]
        await until("all have begun", lambda: all(client.positions == [1, 2] for client in clients))
        environment.streams.stop()
        await asyncio.gather(*opened)
        with pytest.raises(Busy):
            await environment.open(Client())

    run(test)
    assert all(client.has_end for client in clients)


def test_beyond_the_limit_the_client_with_the_most_streams_makes_room_for_others(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_STREAMS", 4)
    greedy, modest = Principal("greedy"), Principal("modest")
    clients = [Client() for _ in range(7)]

    async def test() -> None:
        of_greedy = [await environment.open(client, greedy) for client in clients[:4]]
        with pytest.raises(Busy):
            await environment.open(clients[6], greedy)
        of_modest = [await environment.open(client, modest) for client in clients[4:6]]
        with pytest.raises(Busy):
            await environment.open(clients[6], modest)
        await asyncio.gather(*of_greedy[:2])
        assert not any(stream.done() for stream in (*of_greedy[2:], *of_modest))
        environment.streams.stop()
        await asyncio.gather(*of_greedy, *of_modest)

    run(test)
    assert module.STREAMS._value.get() == 0


def test_whoever_acts_for_many_clients_has_no_more_streams(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_STREAMS", 4)
    greedy, modest = Principal("greedy", frozenset({Role.STAFF})), Principal("modest")
    clients = [Client() for _ in range(6)]

    async def test() -> None:
        of_greedy = [await environment.open(clients[n], greedy.acting_for(f"client {n}")) for n in range(4)]
        with pytest.raises(Busy):
            await environment.open(clients[5], replace(greedy, venues=frozenset({"another"})))
        of_modest = await environment.open(clients[4], modest)
        await of_greedy[0]
        assert not any(stream.done() for stream in (*of_greedy[1:], of_modest))
        environment.streams.stop()
        await asyncio.gather(*of_greedy, of_modest)

    run(test)


def test_nobody_polls_without_streams_and_polling_begins_again_with_one(environment: Environment, db: Db) -> None:
    async def stream_of_one(position: int) -> None:
        client = Client()
        stream = await environment.open(client, after=position - 1)
        await asyncio.to_thread(appended, db)
        await until("the event arrives", lambda: client.positions == [position])
        client.gone.set()
        await stream
        assert environment.streams._tail._poller is None

    async def test() -> None:
        await stream_of_one(1)
        await stream_of_one(2)

    run(test)


def test_streams_outlive_an_outage_of_the_database(environment: Environment, db: Db) -> None:
    client = Client()

    async def test() -> None:
        stream = await environment.open(client)
        await until("it has begun", lambda: client.received)
        with missing(db, "feed_events"), db.begin() as session:
            # Every connection of the streams is cut off, and the table that they read is not there for a while.
            ours = "pid <> pg_backend_pid() AND query LIKE '%feed_events%' AND application_name = 'holdfast'"
            session.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"))
        await asyncio.to_thread(appended, db)
        await until("the event arrives", lambda: client.positions == [1])
        client.gone.set()
        await stream

    run(test)


def test_streams_end_if_the_feed_has_begun_anew(environment: Environment, db: Db) -> None:
    appended(db, 3)
    client = Client()

    async def test() -> None:
        stream = await environment.open(client)
        await until("it has begun", lambda: client.positions == [1, 2, 3])
        with db.begin() as session:
            session.execute(text("DELETE FROM feed_events"))
        await stream

    run(test)
    assert client.has_end


def test_a_stream_whose_next_events_were_pruned_ends_and_skips_nothing(
    environment: Environment, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.feed.tail.MOST_BYTES", 1_000)
    client = Client()

    async def test() -> None:
        stream = await environment.open(client)
        await until("it has begun", lambda: client.received)
        client.takes.clear()
        await asyncio.to_thread(appended, db)
        await until("the tail has it", lambda: environment.streams._tail.after(0, 1))
        await asyncio.to_thread(appended, db, 20)
        await until("the tail has gone on", lambda: environment.streams._tail.after(1, 1) is None)
        await asyncio.to_thread(grown_old, db, 10)
        await asyncio.to_thread(pruned, db)
        client.takes.set()
        await stream

    run(test)
    assert client.positions in ([1], []) and client.has_end
