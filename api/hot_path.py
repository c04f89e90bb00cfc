"""POST /reservations and POST /api/v1/bookings past the framework, which would take most of the processor time.

The framework has the same handlers. It describes them in the OpenAPI document, and it answers what can't be submitted:
so every check, and the answer to every mistake, is written once.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass

import msgspec
from litestar import Litestar, Request
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from api.bookings import routes as bookings
from api.bookings.fields import PATH as BOOKINGS
from api.bookings.requests import NewBooking
from api.bookings.waiting import wait_of
from api.health.metrics import count_response
from api.http import problems, responses
from api.http.asgi import Application, Message, Receive, Scope, Send
from api.http.decoding import decode
from api.http.headers import header_of
from api.reservations.routes import Submission, make_reservation, submission_of, submitted
from api.reservations.schemas import NewReservation
from domain.idempotency import Answered
from domain.runtime import tracing
from domain.runtime.errors import CalendarChanged, HoldfastError

RESERVATIONS = "/reservations"


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation at one path, of which the framework has the handler of that name.

    `wanted` returns what to submit, or None if the framework has to answer the request.
    """

    handler: str
    wanted: Callable[[State, Scope, bytes], Submission | None]
    submit: Callable[[State, Scope, Submission], Awaitable[Answered]]


def _reservation(state: State, scope: Scope, body: bytes) -> Submission | None:
    data = decode(header_of(scope, "Content-Type") or "", body, NewReservation)
    return submission_of(scope, data, state.hold_lifetime, body)


def _booking(state: State, scope: Scope, body: bytes) -> Submission | None:
    data = decode(header_of(scope, "Content-Type") or "", body, NewBooking)
    calendar = state.venues.known(data.venue_id, data.inventory_item_id)
    if calendar is None or calendar.time_zone is None or wait_of(scope):
        return None
    return bookings.submission_of(state, scope, data, body, calendar.id, calendar.time_zone)


OPERATIONS: Mapping[str, Operation] = {
    RESERVATIONS: Operation(make_reservation.handler_name, _reservation, submitted),
    BOOKINGS: Operation(bookings.make_booking.handler_name, _booking, bookings.submit),
}


class HotPath:
    """An ASGI application that makes reservations, and hands every other request on. It needs whole bodies."""

    def __init__(self, app: Litestar) -> None:
        self._app: Application = app
        self._state = app.state
        self._requires_keys: bool = app.state.requires_keys

    @classmethod
    def of(cls, app: Litestar) -> Application:
        """Return the hot path before an application, or the application if traces are wanted: its middleware traces."""
        return app if tracing.is_wanted() else cls(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a reservation, or call the application."""
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        operation = OPERATIONS.get(scope["path"]) if is_post and not scope["query_string"] else None
        if operation is None:
            await self._app(scope, receive, send)
            return
        body = await receive()
        wanted = self._wanted(operation, scope, body["body"])
        if wanted is None:
            await self._app(scope, _once_more(body, receive), send)
            return
        try:
            answer = await operation.submit(self._state, scope, wanted)
        except CalendarChanged:
            # The framework's handler reads the calendar again.
            await self._app(scope, _once_more(body, receive), send)
        # The framework would catch it in the same way: what a handler raises is answered.
        except Exception as error:
            problem = problems.of_any(Request(scope), error)  # type: ignore[arg-type]
            headers = {**problem.headers, "content-type": problems.MEDIA_TYPE}
            await _send(send, operation, problem.status_code or 500, headers, msgspec.json.encode(problem.content))
        else:
            headers = responses.headers_of(answer, status=201, at=scope["path"])
            headers["content-type"] = "application/json"
            await _send(send, operation, 201, headers, answer.text.encode())

    def _wanted(self, operation: Operation, scope: Scope, body: bytes) -> Submission | None:
        """Return what to submit, or None if the request is refused, or is for the framework."""
        try:
            wanted = operation.wanted(self._state, scope, body)
        except (HoldfastError, HTTPException):
            return None
        lacks_key = self._requires_keys and header_of(scope, "Idempotency-Key") is None
        return None if lacks_key else wanted


def _once_more(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that yields a message that was received, and then what follows it."""
    messages = [message]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


async def _send(send: Send, operation: Operation, status: int, headers: MutableMapping[str, str], body: bytes) -> None:
    count_response(operation.handler, status)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})
