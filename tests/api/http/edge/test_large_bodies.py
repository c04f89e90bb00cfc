"""Large bodies arrive whole, and a client that does not take one is disconnected and delays no other."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from api.http.asgi import Message
from api.http.edge import large_bodies, time_limits
from api.http.edge.large_bodies import LargeBodies

BODY = bytes(range(256)) * 10


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_bodies, "PART_BYTES", 1_000)
    monkeypatch.setattr(large_bodies, "SEND_SECONDS", 0.2)
    monkeypatch.setattr(time_limits, "LOOK_SECONDS", 0.01)


async def answering(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": BODY, "more_body": False})


class Client:
    """A client that takes so many messages of an answer, and then no more until it takes all."""

    def __init__(self, takes: float = float("inf")) -> None:
        self.messages: list[Message] = []
        self._takes = takes
        self.takes_all = asyncio.Event()

    async def send(self, message: Message) -> None:
        if len(self.messages) >= self._takes:
            await self.takes_all.wait()
        self.messages.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def has_end(self) -> bool:
        return self.messages[-1].get("more_body") is False


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within_a_minute() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(within_a_minute())


def test_a_large_body_arrives_whole_in_parts() -> None:
    client = Client()

    run(lambda: LargeBodies(answering)({}, None, client.send))  # type: ignore[arg-type]

    assert (client.body, client.has_end) == (BODY, True)
    assert max(len(message.get("body", b"")) for message in client.messages) == 1_000


def test_a_client_that_takes_no_more_is_cut_off_and_delays_no_other() -> None:
    before = large_bodies.CUT_OFF._value.get()
    slow, healthy = Client(takes=2), Client()

    async def test() -> None:
        app: Any = LargeBodies(answering)
        slow_answer = asyncio.create_task(app({}, None, slow.send))
        await app({}, None, healthy.send)
        assert not slow_answer.done()
        await slow_answer
        assert app._unsent == 0

    run(test)
    assert (healthy.body, healthy.has_end) == (BODY, True)
    assert (slow.body, slow.has_end) == (BODY[:1_000], False)
    assert large_bodies.CUT_OFF._value.get() == before + 1


def test_if_too_much_waits_for_slow_clients_the_one_that_has_waited_longest_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large_bodies, "SEND_SECONDS", 50)
    monkeypatch.setattr(large_bodies, "MOST_UNSENT_BYTES", 3 * len(BODY))
    slow = [Client(takes=2) for _ in range(3)]

    async def test() -> None:
        app: Any = LargeBodies(answering)
        answers = [asyncio.create_task(app({}, None, client.send)) for client in slow]
        await asyncio.sleep(0)
        healthy = Client()
        await app({}, None, healthy.send)
        await answers[0]
        assert (healthy.has_end, [answer.done() for answer in answers]) == (True, [True, False, False])
        for client in slow:
            client.takes_all.set()
        await asyncio.gather(*answers)

    run(test)
    assert [client.has_end for client in slow] == [False, True, True]
