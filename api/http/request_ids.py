"""Request ids: each ties a response to the log lines, the problem and the events of its request."""

import re
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar

from structlog.contextvars import STRUCTLOG_KEY_PREFIX
from uuid_utils import uuid7

from api.http.asgi import Message, Send
from api.http.security_headers import secured

#: An id that a client sends is taken over if it looks like this, and replaced by one of our own otherwise: it gets into
#: logs, and into the headers of messages to consumers. No e-mail address does.
_ACCEPTED = re.compile(rb"[\w.:/+=-]{1,128}", re.ASCII)

#: The id of the request that is being served. Its name makes structlog add it to every log line.
_CURRENT: ContextVar[str | None] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}request_id", default=None)


def begin(headers: Mapping[bytes, bytes]) -> str:
    """Return the id of a request with these headers, and keep it as the current one."""
    sent = headers.get(b"x-request-id")
    request_id = sent.decode("ascii") if sent is not None and _ACCEPTED.fullmatch(sent) else str(uuid7())
    _CURRENT.set(request_id)
    return request_id


def current() -> str | None:
    """Return the id of the request that is being served, or None outside of a request."""
    return _CURRENT.get()


def echo(send: Send, request_id: str) -> Send:
    """Return a `send` that adds the id to the headers of the response, and those that every response has."""
    header = (b"x-request-id", request_id.encode("ascii"))

    # A plain function, because every message of every response passes through it.
    def echoing(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message["headers"] = secured([*message["headers"], header])
        return send(message)

    return echoing
