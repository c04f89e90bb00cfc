"""Admission: what a connection may cost before a handler runs, in time, memory and processor.

The server waits for ever for a body, and hands on every piece of it. Here a body is read whole, within limits, before
the application is called. So a client that sends slowly, or far too much, holds nothing but its own connection.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec

from api.http import problems
from api.http.decoding import MAX_BODY_BYTES
from api.http.problems import EARLY_WORDINGS, MEDIA_TYPE
from domain.runtime.errors import Busy
from domain.runtime.metrics import Counter

#: A body that has not arrived within this time is refused.
BODY_SECONDS = 5.0

#: The pieces in which a body may arrive. Each costs processor time, so a megabyte in single bytes would cost seconds.
MOST_PIECES = 2_000

#: How much of a body that is too large is read and thrown away before it is refused, and for how long: clients that
#: are still sending would see a broken connection instead of the answer.
DISCARDED_BYTES = 16_000_000
DISCARD_SECONDS = 5.0

#: The longest query string. Every list can be asked for with less.
MAX_QUERY_BYTES = 4_096

#: The paths that are answered however many requests there are.
ALWAYS_ADMITTED = frozenset({"/health/live", "/health/ready", "/metrics"})

#: ASGI, of which only HTTP comes here.
Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

REFUSED = Counter(
    "holdfast_requests_not_admitted",
    "Requests answered before a handler ran, by the status. 503: too many at once; 408: the body came too slowly.",
    ["status"],
)


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    status: int


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
                raise _Refused(503)
            if len(scope["query_string"]) > MAX_QUERY_BYTES:
                raise _Refused(414)
            has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
            body = await _read(scope, receive) if has_body else b""
        except _Refused as refused:
            REFUSED.labels(refused.status).inc()
            await _refuse(refused.status, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)


async def _read(scope: Scope, receive: Receive) -> bytes | None:
    """Return the body, or None if the client has gone. Raises _Refused."""
    pieces: list[bytes] = []
    size = 0
    if _length(scope["headers"]) > MAX_BODY_BYTES:
        await _discard(receive)
        raise _Refused(413)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                pieces.append(message["body"])
                size += len(message["body"])
                if size > MAX_BODY_BYTES or len(pieces) > MOST_PIECES:
                    await _discard(receive)
                    raise _Refused(413)
                if not message["more_body"]:
                    return b"".join(pieces)
    except TimeoutError:
        raise _Refused(408) from None


def _length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the length that a request announces, 0 if it announces none that is a number."""
    written = next((value for name, value in headers if name == b"content-length"), b"")
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


async def _refuse(status: int, send: Send) -> None:
    """Answer with a problem, and close the connection: the rest of a body may still be on its way."""
    problem = problems.body_of(Busy()) if status == 503 else problems.early_body_of(EARLY_WORDINGS[status])
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 503:
        headers.append((b"retry-after", str(Busy.retry_after_seconds).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
