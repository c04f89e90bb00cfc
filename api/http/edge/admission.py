"""Admission: what a connection may cost before a handler runs, in time, memory and processor.

The server waits for ever for a body, and hands on every piece of it. Here a body is read whole, within limits, before
the application is called. So a client that sends slowly, or far too much, holds nothing but its own connection.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.http import problems
from api.http.asgi import Application, Message, Receive, Scope, Send
from api.http.edge.exchanges import refuse
from api.http.edge.time_limits import TimeLimits
from api.http.limits import BODY_SECONDS, MAX_BODY_BYTES, MOST_PIECES
from domain.runtime.errors import Busy

#: How much of a body that is refused is read and thrown away: clients that are still sending would see a broken
#: connection instead of the answer.
DISCARDED_BYTES = 16_000_000
DISCARDED_PIECES = 20_000

#: The first part of each body, which every request may keep in memory. Few reservations are larger.
SMALL_BODY_BYTES = 20_000

#: What a piece takes beside its content.
PIECE_BYTES = 64

#: What all requests together may keep of their bodies beyond that part. Further requests are answered 503.
MOST_BUFFERED_BYTES = 32_000_000

#: The bodies that are read at a time. If there are more, the one that has taken the longest is refused: so however many
#: clients send slowly, one that sends at once is served.
MOST_READING = 2_048

#: The paths that are answered however many requests there are.
ALWAYS_ADMITTED = frozenset({"/health/live", "/health/ready", "/metrics"})


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    """Raised with the status that a request is answered with.

    It is raised where it is made. An error in a variable of its own traceback is freed by Python's garbage collector
    only, with the request in it, and until then the server keeps the connection.
    """

    status: int

    @property
    def problem(self) -> Mapping[str, Any]:
        """The body of the answer."""
        return problems.body_of(Busy()) if self.status == 503 else problems.body_of_early(problems.EARLY[self.status])


@dataclass(slots=True)
class _Body:
    """A body that is read, its size, and the bytes that it counts towards MOST_BUFFERED_BYTES."""

    # They are joined in the end: a buffer that grows leaves holes of its former sizes, which took more than the bodies.
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    counted: int = 0


class Admission:
    """An ASGI application that calls another one with whole bodies, for at most `most_requests` at a time."""

    def __init__(self, app: Application, *, most_requests: int) -> None:
        self._app = app
        self._most_requests = most_requests
        self._requests = 0
        self._time_limits = TimeLimits(seconds=BODY_SECONDS, most=MOST_READING)
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, unless the request is refused."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body()
        try:
            await self._admit(scope, receive, send, body)
        except _Refused as refused:
            await refuse(refused.problem, send)
        finally:
            self._release(body)

    async def _admit(self, scope: Scope, receive: Receive, send: Send, body: _Body) -> None:
        headers = dict(scope["headers"])
        has_body = b"content-length" in headers or b"transfer-encoding" in headers
        if has_body and not await self._read(headers, receive, body):
            return
        if self._requests >= self._most_requests and scope["path"] not in ALWAYS_ADMITTED:
            raise _Refused(503)
        self._requests += 1
        try:
            content = b"".join(body.pieces)
            body.pieces.clear()
            await self._app(scope, _replay(content, receive), send)
        finally:
            self._requests -= 1

    async def _read(self, headers: Mapping[bytes, bytes], receive: Receive, body: _Body) -> bool:
        """Read a body. Return False if the client has gone. Raises _Refused, after what is refused was thrown away."""
        refused = 413 if _length(headers) > MAX_BODY_BYTES else None
        received, discarded, more = 0, 0, True
        try:
            with self._time_limits.begin():
                while more and discarded < DISCARDED_BYTES and received < DISCARDED_PIECES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    received, more = received + 1, message["more_body"]
                    refused = refused or self._keep(body, message["body"])
                    if refused:
                        self._release(body)
                        discarded += len(message["body"])
        except TimeoutError:
            refused = refused or 408
        if refused:
            raise _Refused(refused)
        return True

    def _keep(self, body: _Body, piece: bytes) -> int | None:
        """Add a piece to a body. Return a status if that exceeds a limit."""
        body.pieces.append(piece)
        body.size += len(piece)
        if body.size > MAX_BODY_BYTES or len(body.pieces) > MOST_PIECES:
            return 413
        more = max(0, body.size + PIECE_BYTES * len(body.pieces) - SMALL_BODY_BYTES) - body.counted
        if more and self._buffered + more > MOST_BUFFERED_BYTES:
            return 503
        self._buffered += more
        body.counted += more
        return None

    def _release(self, body: _Body) -> None:
        self._buffered -= body.counted
        body.counted = 0
        body.pieces.clear()


def _length(headers: Mapping[bytes, bytes]) -> int:
    """Return the length that a request announces, 0 if it announces none that is a number."""
    written = headers.get(b"content-length", b"")
    return int(written) if written.isdigit() and len(written) < 20 else 0


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields a body that has been read, and then what follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
