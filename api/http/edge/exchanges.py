"""Exchanges: what all requests and responses have in common, whoever answers.

Each request has an id and a path by which it is routed, HEAD is GET without the content, and `OPTIONS *`
is answered.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from api.http import methods, problems, request_ids
from api.http.asgi import Application, Receive, Scope, Send
from api.http.limits import MAX_PATH_BYTES, MAX_QUERY_BYTES
from api.http.paths import routed
from domain.runtime.errors import Invalid
from domain.runtime.metrics import Counter

REFUSED = Counter(
    "holdfast_requests_not_admitted",
    "Requests answered before a handler ran, by the status. 503: too many at once; 408: the body came too slowly.",
    ["status"],
)


class Exchanges:
    """An ASGI application that prepares each request for another one, and completes its response."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, unless the address of the request can't be used."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_ids.begin(dict(scope["headers"]))
        send = methods.prepare(scope, request_ids.echo(send, request_id))
        problem = _prepare(scope)
        if problem is not None:
            await refuse(problem, send)
        elif scope["path"] == "*" and scope["method"] == "OPTIONS":
            await methods.answer_for_all(send)
        else:
            await self._app(scope, receive, send)


def _prepare(scope: Scope) -> Mapping[str, Any] | None:
    """Set the path by which a request is routed. Return a problem if it can't be used."""
    raw_path = scope["raw_path"]
    if len(scope["query_string"]) > MAX_QUERY_BYTES or len(raw_path) > MAX_PATH_BYTES:
        return problems.body_of_early(problems.EARLY[414])
    try:
        scope["path"] = routed(scope["path"], raw_path)
    except Invalid as invalid:
        return problems.body_of(invalid)
    return None


async def refuse(
    problem: Mapping[str, Any], send: Send, headers: Sequence[tuple[bytes, bytes]] = (), *, keeps: bool = False
) -> None:
    """Answer with a problem, and close the connection unless it is kept: a body may still be on its way."""
    REFUSED.labels(problem["status"]).inc()
    body = msgspec.json.encode(problem)
    headers = [
        *headers,
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    if not keeps:
        headers.append((b"connection", b"close"))
    if "retry_after" in problem:
        headers.append((b"retry-after", str(problem["retry_after"]).encode()))
    await send({"type": "http.response.start", "status": problem["status"], "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
