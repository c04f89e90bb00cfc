"""Admission: a body is read whole within limits, and whoever sends slowly or too much takes nothing from others."""

import asyncio
import gc
import json
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from api.http.asgi import Message
from api.http.edge import admission
from api.http.edge.admission import Admission
from api.http.edge.exchanges import Exchanges

#: The bytes that all requests together may keep of large bodies, in these tests.
BUFFERED = 100_000


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "BODY_SECONDS": 0.3,
        "MAX_BODY_BYTES": 90_000,
        "MOST_PIECES": 50,
        "DISCARDED_BYTES": 200_000,
        "DISCARDED_PIECES": 100,
        "SMALL_BODY_BYTES": 1_000,
        "MOST_BUFFERED_BYTES": BUFFERED,
        "MOST_READING": 5,
    }.items():
        monkeypatch.setattr(admission, name, value)


@dataclass
class Application:
    """Notes the bodies that it gets, and answers 200 as soon as `gate` is open."""

    bodies: list[bytes] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        self.bodies.append(message["body"])
        assert not message["more_body"]
        await self.gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Exchange:
    """A request that is sent piece by piece, and its answer."""

    def __init__(self, app: Exchanges, path: str = "/reservations", query: str = "", **headers: str) -> None:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
        scope |= {"query_string": query.encode(), "headers": raw}
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.received = 0
        self.sent: list[Message] = []
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        message = await self.messages.get()
        self.received += 1
        return message

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def send(self, piece: bytes, *, more: bool = True) -> "Exchange":
        self.messages.put_nowait({"type": "http.request", "body": piece, "more_body": more})
        return self

    def disconnect(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> tuple[int, Mapping[bytes, bytes]]:
        """Return the status and the headers of the answer."""
        async with asyncio.timeout(30):
            await self.task
        return self.sent[0]["status"], dict(self.sent[0]["headers"])

    async def status(self) -> int:
        return (await self.answer())[0]

    @property
    def body(self) -> Any:
        return json.loads(self.sent[1]["body"])


def chunked(app: Exchanges, **options: Any) -> Exchange:
    """Begin a request whose length is not announced."""
    return Exchange(app, transfer_encoding="chunked", **options)


Test = Callable[[Application, Exchanges], Awaitable[None]]


@pytest.fixture
def run() -> Callable[[Test], None]:
    """Run a test with an application behind an admission of three requests at a time."""

    def run(test: Test) -> None:
        async def within() -> None:
            app = Application()
            app.gate.set()
            await test(app, Exchanges(Admission(app, most_requests=3)))

        asyncio.run(within())

    return run


Run = Callable[[Test], None]


def test_the_application_gets_the_whole_body_at_once(run: Run) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        request = chunked(admitted).send(b"a").send(b"b").send(b"", more=False)

        assert await request.status() == 200
        assert app.bodies == [b"ab"]

    run(test)


def test_without_a_body_nothing_is_read(run: Run) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        request = Exchange(admitted)

        assert await request.status() == 200
        assert (app.bodies, request.received) == ([b""], 0)

    run(test)


@pytest.mark.parametrize("headers", [{"content_length": "100000"}, {"transfer_encoding": "chunked"}])
def test_a_body_that_is_too_large_is_refused_when_it_has_been_sent(run: Run, headers: dict[str, str]) -> None:
    """A client that is still sending would see a broken connection."""

    async def test(app: Application, admitted: Exchanges) -> None:
        request = Exchange(admitted, **headers)
        for _ in range(10):
            request.send(b"x" * 10_000)
        request.send(b"", more=False)

        status, answer = await request.answer()

        assert (status, answer[b"connection"], request.body["field"]) == (413, b"close", "body")
        assert (request.received, app.bodies) == (11, [])

    run(test)


@pytest.mark.parametrize(("piece", "received"), [(b"x" * 50_000, 5), (b"x", 100)])
def test_of_a_body_without_end_a_part_is_read(run: Run, piece: bytes, received: int) -> None:
    """Of 50,000 bytes each, the first piece is kept, and four are thrown away."""

    async def test(app: Application, admitted: Exchanges) -> None:
        request = chunked(admitted)
        for _ in range(500):
            request.send(piece)

        assert await request.status() == 413
        assert (request.received, app.bodies) == (received, [])

    run(test)


@pytest.mark.parametrize(
    ("headers", "expected"), [({"content_length": "1000"}, 408), ({"content_length": "100000"}, 413)]
)
def test_a_body_that_does_not_end_is_refused_in_time(run: Run, headers: dict[str, str], expected: int) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        request = Exchange(admitted, **headers)

        async def drip() -> None:
            while True:
                request.send(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        status, answer = await request.answer()
        dripping.cancel()

        assert (status, answer[b"connection"]) == (expected, b"close")
        assert app.bodies == []

    run(test)


def test_a_client_that_has_gone_gets_no_answer(run: Run) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        request = chunked(admitted).send(b"x")
        request.disconnect()
        await request.task

        assert (request.sent, app.bodies) == ([], [])

    run(test)


def test_a_query_that_is_too_long_is_refused(run: Run) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        assert await Exchange(admitted, query="x" * 4_097).status() == 414
        assert await Exchange(admitted, query="x" * 4_096).status() == 200

    run(test)


def test_requests_beyond_the_limit_are_busy_and_health_is_answered(run: Run) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        app.gate.clear()
        served = [Exchange(admitted) for _ in range(3)]
        await asyncio.sleep(0)

        status, headers = await Exchange(admitted).answer()
        always = [Exchange(admitted, path=path) for path in ("/health/live", "/health/ready", "/metrics")]
        app.gate.set()

        assert (status, headers[b"connection"]) == (503, b"close")
        assert int(headers[b"retry-after"]) >= 1
        assert [await request.status() for request in [*served, *always]] == [200] * 6
        assert await Exchange(admitted).status() == 200

    run(test)


def test_slow_bodies_keep_no_request_out(run: Run) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        slow = [chunked(admitted).send(b"x") for _ in range(4)]
        await asyncio.sleep(0)

        assert await chunked(admitted).send(b"y", more=False).status() == 200
        assert [await request.status() for request in slow] == [408] * 4

    run(test)


def test_if_too_many_bodies_are_read_those_that_have_taken_the_longest_are_refused(run: Run) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        slow = [chunked(admitted).send(b"x") for _ in range(7)]
        await asyncio.sleep(0.05)

        assert [request.task.done() for request in slow] == [True] * 2 + [False] * 5
        assert await slow[0].status() == 408
        assert await chunked(admitted).send(b"y", more=False).status() == 200
        for request in slow[3:]:
            request.send(b"", more=False)
        assert [await request.status() for request in slow[2:]] == [408, *[200] * 4]

    run(test)


def test_large_bodies_take_a_limited_part_of_the_memory_and_small_ones_are_served(run: Run) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        large = chunked(admitted).send(b"x" * 80_000)
        await asyncio.sleep(0.01)

        too_much = chunked(admitted).send(b"x" * 22_001, more=False)
        small = chunked(admitted).send(b"x" * 1_000, more=False)
        assert [await too_much.status(), await small.status()] == [503, 200]

        assert await large.send(b"", more=False).status() == 200
        assert await chunked(admitted).send(b"x" * 22_001, more=False).status() == 200

    run(test)


def test_a_body_counts_as_long_as_its_request_is_served(run: Run) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        app.gate.clear()
        served = chunked(admitted).send(b"x" * 80_000, more=False)
        await asyncio.sleep(0.01)

        assert await chunked(admitted).send(b"x" * 80_000, more=False).status() == 503
        app.gate.set()
        assert await served.status() == 200
        assert await chunked(admitted).send(b"x" * 80_000, more=False).status() == 200

    run(test)


@pytest.mark.parametrize("ending", ["refused", "gone", "slow"])
def test_a_body_that_is_not_served_counts_no_longer(run: Run, ending: str) -> None:
    async def test(app: Application, admitted: Exchanges) -> None:
        request = chunked(admitted).send(b"x" * 80_000)
        if ending == "refused":
            request.send(b"x" * 80_000, more=False)
        if ending == "gone":
            request.disconnect()
        await request.task

        assert await chunked(admitted).send(b"x" * 80_000, more=False).status() == 200

    run(test)


@pytest.mark.parametrize("ending", ["refused", "slow"])
def test_nothing_of_a_request_that_was_refused_waits_for_the_garbage_collector(run: Run, ending: str) -> None:
    """The server keeps a connection open as long as something refers to it."""

    async def test(app: Application, admitted: Exchanges) -> None:
        request = chunked(admitted).send(b"x" * (100_000 if ending == "refused" else 1), more=ending == "slow")
        await request.task
        connection = weakref.ref(request)
        del request

        assert connection() is None

    gc.disable()
    try:
        run(test)
    finally:
        gc.enable()
