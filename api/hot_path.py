"""POST /reservations past the framework, which would take more processor time than all the rest.

The framework has the same handler. It describes it in the OpenAPI document, and it answers what can't be submitted:
so every check, and the answer to every mistake, is written once.
"""

from collections.abc import MutableMapping
from datetime import timedelta

import msgspec
from litestar import Litestar, Request
from litestar.exceptions import HTTPException

from api.health.metrics import count_response
from api.http import problems, responses
from api.http.asgi import Application, Message, Receive, Scope, Send
from api.http.decoding import decode
from api.http.headers import header_of
from api.reservations.routes import make_reservation, reserve_of, submitted
from api.reservations.schemas import NewReservation
from domain.reservations import Reserve
from domain.runtime import tracing
from domain.runtime.errors import Invalid

PATH = "/reservations"


class HotPath:
    """An ASGI application that makes reservations, and hands every other request on. It needs whole bodies."""

    def __init__(self, app: Litestar) -> None:
        self._app: Application = app
        self._state = app.state
        self._hold_lifetime: timedelta = app.state.hold_lifetime
        self._requires_keys: bool = app.state.requires_keys

    @classmethod
    def of(cls, app: Litestar) -> Application:
        """Return the hot path before an application, or the application if traces are wanted: its middleware traces."""
        return app if tracing.is_wanted() else cls(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer POST /reservations, or call the application."""
        is_here = scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST"
        if not is_here or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        body = await receive()
        wanted = self._wanted(scope, body["body"])
        if wanted is None:
            await self._app(scope, _once_more(body, receive), send)
            return
        try:
            answer = await submitted(self._state, scope, wanted)
        # The framework would catch it in the same way: what a handler raises is answered.
        except Exception as error:
            problem = problems.of_any(Request(scope), error)  # type: ignore[arg-type]
            headers = {**problem.headers, "content-type": problems.MEDIA_TYPE}
            await _send(send, problem.status_code or 500, headers, msgspec.json.encode(problem.content))
        else:
            headers = responses.headers_of(answer, status=201, at=PATH)
            await _send(send, 201, {**headers, "content-type": "application/json"}, answer.text.encode())

    def _wanted(self, scope: Scope, body: bytes) -> Reserve | None:
        """Return what to submit, or None if the request is refused."""
        try:
            data = decode(header_of(scope, "Content-Type") or "", body, NewReservation)
            wanted = reserve_of(scope, data, self._hold_lifetime, body)
        except (Invalid, HTTPException):
            return None
        return None if wanted.key is None and self._requires_keys else wanted


def _once_more(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that yields a message that was received, and then what follows it."""
    messages = [message]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


async def _send(send: Send, status: int, headers: MutableMapping[str, str], body: bytes) -> None:
    count_response(make_reservation.handler_name, status)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})
