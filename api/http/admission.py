"""Admission: what a connection may cost before a handler runs, in time, memory and processor.

The server waits for ever for a body, and hands on every piece of it. Here a body is read whole, within limits, before
the application is called. So a client that sends slowly, or far too much, holds nothing but its own connection.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.http import problems
from api.http.asgi import Application, Message, Receive, Scope, Send
from api.http.exchanges import refuse
from api.http.limits import BODY_SECONDS, MAX_BODY_BYTES, MOST_PIECES
from domain.runtime.errors import Busy

#: How much of a body that is too large is read and thrown away before it is refused, and for how long: clients that
#: are still sending would see a broken connection instead of the answer.
DISCARDED_BYTES = 16_000_000
DISCARD_SECONDS = 5.0

#: The paths that are answered however many requests there are.
ALWAYS_ADMITTED = frozenset({"/health/live", "/health/ready", "/metrics"})


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    """Raised with the body of the problem that a request is answered with."""

    problem: Mapping[str, Any]


def _early(status: int) -> _Refused:
    return _Refused(problems.body_of_early(problems.EARLY[status]))


class Admission:
    """An ASGI application that calls another one with whole bodies, for at most `most_requests` at a time."""

    def __init__(self, app: Application, *, most_requests: int) -> None:
        self._app = app
        self._most_requests = most_requests
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, unless the request is refused."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._requests += 1
        try:
            await self._admit(scope, receive, send)
        finally:
            self._requests -= 1

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._requests > self._most_requests and scope["path"] not in ALWAYS_ADMITTED:
                raise _Refused(problems.body_of(Busy()))
            headers = dict(scope["headers"])
            has_body = b"content-length" in headers or b"transfer-encoding" in headers
            body = await _read(headers, receive) if has_body else b""
        except _Refused as refused:
            await refuse(refused.problem, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)


async def _read(headers: Mapping[bytes, bytes], receive: Receive) -> bytes | None:
    """Return the body, or None if the client has gone. Raises _Refused."""
    try:
        if _length(headers) <= MAX_BODY_BYTES:
            async with asyncio.timeout(BODY_SECONDS):
                return await _read_pieces(receive)
    except TimeoutError:
        raise _early(408) from None
    except _TooLarge as error:
        if error.is_all:
            raise _early(413) from None
    await _discard(receive)
    raise _early(413)


@dataclass(frozen=True, slots=True)
class _TooLarge(Exception):
    """Raised when a body is too large; `is_all` is whether nothing more will come."""

    is_all: bool


async def _read_pieces(receive: Receive) -> bytes | None:
    """Return the body, or None if the client has gone. Raises _TooLarge."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message["body"])
        size += len(message["body"])
        if size > MAX_BODY_BYTES or len(pieces) > MOST_PIECES:
            raise _TooLarge(is_all=not message["more_body"])
        if not message["more_body"]:
            return b"".join(pieces)


def _length(headers: Mapping[bytes, bytes]) -> int:
    """Return the length that a request announces, 0 if it announces none that is a number."""
    written = headers.get(b"content-length", b"")
    return int(written) if written.isdigit() and len(written) < 20 else 0


async def _discard(receive: Receive) -> None:
    """Read what the client still sends, for a while."""
    size, ends = 0, time.monotonic() + DISCARD_SECONDS
    while size < DISCARDED_BYTES and time.monotonic() < ends:
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                message = await receive()
        except TimeoutError:
            return
        if message["type"] == "http.disconnect" or not message["more_body"]:
            return
        size += len(message["body"])


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields a body that has been read, and then what follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
