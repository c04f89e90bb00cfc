"""Requests of pages of other origins (CORS), for the origins that are set. Without any, browsers refuse all of them."""

from collections.abc import Awaitable, Collection

from api.http.asgi import Application, Message, Receive, Scope, Send
from api.http.methods import ALL

#: Browsers ask again after this time, in seconds.
REMEMBERED_SECONDS = 600

#: The headers that a page may send, and those that it may read beside the usual ones.
SENT = b"Authorization, Content-Type, Idempotency-Key, If-Match, Last-Event-ID, Traceparent, X-Client-Id, X-Request-Id"
READ = b"ETag, Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-Id"

_VARIES = (b"vary", b"Origin")


class CrossOrigin:
    """An ASGI application that lets pages of some origins call another one. No cookies or the like are allowed."""

    def __init__(self, app: Application, origins: Collection[str]) -> None:
        self._app = app
        self._origins = {origin.encode() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, or answer the question of a browser whether a page may send a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        allowed = origin if origin in self._origins else None
        if scope["method"] == "OPTIONS" and origin and b"access-control-request-method" in headers:
            await _answer(allowed, send)
        else:
            await self._app(scope, receive, _allowing(allowed, send))


def _allowing(origin: bytes | None, send: Send) -> Send:
    added = [_VARIES]
    if origin:
        added += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", READ)]

    def allowing(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *added]
        return send(message)

    return allowing


async def _answer(origin: bytes | None, send: Send) -> None:
    """Say what a page of an origin may send. Without an allowed origin that is nothing."""
    headers = [_VARIES]
    if origin:
        headers += [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", ALL.encode()),
            (b"access-control-allow-headers", SENT),
            (b"access-control-max-age", str(REMEMBERED_SECONDS).encode()),
        ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
