"""A webhook receiver that can be slow, refuse one aggregate, and shed load. Its environment says so.

A GET is answered with what it has counted (see `Counted`), and a GET of /arrivals with the time at which each event
arrived last, by the monotonic clock, which all processes of a machine share.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import httpx

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]

#: RECEIVER_STATUS, where the refused aggregate gets no answer at all.
NO_ANSWER = 0

#: No call waits for so long.
NO_ANSWER_SECONDS = 120


@dataclass
class Counted:
    """How many calls were accepted and refused. `shed_at` is when the first one was shed, or 0.

    From then on `taken` and `shed` count the calls that were accepted and shed.
    """

    accepted: int = 0
    refused: int = 0
    shed_at: float = 0
    taken: int = 0
    shed: int = 0


class Tokens:
    """So many calls a second may be taken. Those of one second may come all at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens, self._at = rate, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        is_enough = self._tokens >= 1
        self._tokens -= is_enough
        return is_enough


class Receiver:
    """It answers 204 after RECEIVER_SECONDS.

    Where RECEIVER_REFUSES occurs in the event it answers with RECEIVER_STATUS. With RECEIVER_RATE it takes so many
    calls a second, and answers the others with 503.
    """

    def __init__(self) -> None:
        self._seconds = float(os.environ.get("RECEIVER_SECONDS", "0"))
        self._refuses = os.environ.get("RECEIVER_REFUSES", "").encode()
        self._status = int(os.environ.get("RECEIVER_STATUS", "500"))
        self._tokens = Tokens(float(os.environ.get("RECEIVER_RATE", "inf")))
        self._counted = Counted()
        self._arrivals: dict[str, float] = {}

    async def answer(self, scope: Any, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        event = await _read(receive)
        if scope["method"] == "GET":
            found: object = self._arrivals if scope["path"] == "/arrivals" else asdict(self._counted)
            await _answer(send, 200, json.dumps(found).encode())
            return
        self._arrivals[dict(scope["headers"])[b"webhook-id"].decode()] = time.monotonic()
        if self._seconds:
            await asyncio.sleep(self._seconds)
        await _answer(send, await self._status_of(event))

    async def _status_of(self, event: bytes) -> int:
        if self._refuses and self._refuses in event:
            self._counted.refused += 1
            if self._status == NO_ANSWER:
                await asyncio.sleep(NO_ANSWER_SECONDS)
            return self._status
        if self._tokens.take():
            self._counted.accepted += 1
            self._counted.taken += self._counted.shed > 0
            return 204
        self._counted.shed += 1
        self._counted.shed_at = self._counted.shed_at or time.monotonic()
        return 503


def create_app() -> Application:
    return Receiver().answer


def counted(port: int) -> Counted:
    """Ask the receiver at this port what it has counted."""
    return Counted(**httpx.get(f"http://127.0.0.1:{port}/").json())


def arrivals(port: int) -> dict[str, float]:
    """Ask the receiver at this port when each event arrived last."""
    found: dict[str, float] = httpx.get(f"http://127.0.0.1:{port}/arrivals").json()
    return found


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Send, status: int, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})
