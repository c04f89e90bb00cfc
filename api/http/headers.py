"""The headers of requests and of responses: how they are read, and how the OpenAPI document describes them."""

import re
from typing import Any

from litestar import Request
from litestar.openapi.spec import OpenAPIHeader, OpenAPIType, Parameter, Schema

from api.http import request_ids, tracing
from api.http.tracing import READS
from domain.idempotency import Key
from domain.runtime.errors import Invalid

#: The client to whom keys belong if the request names none.
ANONYMOUS = "anonymous"

_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")


def client_of(request: Request[Any, Any, Any]) -> str:
    """Return the client that sends a request, from the header X-Client-Id. Raises Invalid."""
    client = _only(request, "X-Client-Id")
    if client is None:
        return ANONYMOUS
    if not _PRINTABLE.fullmatch(client):
        raise Invalid("X-Client-Id", "it must have 1 to 255 printable ASCII characters")
    return client


def key_of(request: Request[Any, Any, Any], operation: str) -> Key | None:
    """Return the idempotency key of a request, quoted or not, in its scope. Raises Invalid."""
    written = _only(request, "Idempotency-Key")
    if written is None:
        return None
    quoted = len(written) >= 2 and written[0] == written[-1] == '"'
    key = written[1:-1] if quoted else written
    if not _PRINTABLE.fullmatch(key):
        raise Invalid("Idempotency-Key", "it must have 1 to 255 printable ASCII characters")
    return Key(client_of(request), operation, key)


def require_key(request: Request[Any, Any, Any]) -> None:
    """Raise Invalid if a request may change something and has no idempotency key."""
    if request.method not in READS and "idempotency-key" not in request.headers:
        raise Invalid("Idempotency-Key", "this header is required (REQUIRE_IDEMPOTENCY_KEYS)")


def _only(request: Request[Any, Any, Any], name: str) -> str | None:
    """Return the value of a header, or None without one. Raises Invalid if it is given more than once."""
    values = request.headers.getall(name, None)
    if values is None:
        return None
    if len(values) > 1:
        raise Invalid(name, "this header is given more than once")
    return values[0]


def trace_of(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Return what connects events to the request that caused them: its W3C trace context and its id.

    The trace context is that of our own span if traces are wanted, otherwise the one that the client sent.
    """
    found = {"traceparent": tracing.current() or request.headers.get("traceparent")}
    found["correlation_id"] = request_ids.current()
    return {name: value[:255] for name, value in found.items() if value and _PRINTABLE.fullmatch(value[:255])}


#: The headers of requests, as the OpenAPI document describes them.
KEY = Parameter(
    name="Idempotency-Key",
    param_in="header",
    description="Makes it safe to send the request again: for 24 hours the same key gets the same answer",
    schema=Schema(type=OpenAPIType.STRING, min_length=1, max_length=255, pattern="^[ -~]+$"),
)
CLIENT = Parameter(
    name="X-Client-Id",
    param_in="header",
    description="The client to whom the key belongs, in 1 to 255 printable ASCII characters",
    # Without a pattern, because the header is not checked where nothing depends on it.
    schema=Schema(type=OpenAPIType.STRING),
)
SENT_REQUEST_ID = Parameter(
    name="X-Request-Id",
    param_in="header",
    description="The id of the request. One that does not have 1 to 128 visible ASCII characters is replaced",
    schema=Schema(type=OpenAPIType.STRING),
)


def _header(description: str) -> OpenAPIHeader:
    return OpenAPIHeader(description=description, schema=Schema(type=OpenAPIType.STRING))


#: The headers of responses, likewise.
REPLAYED = {"Idempotency-Replayed": _header("`true` if this is the stored answer to an earlier request")}
ETAG = {"ETag": _header("The version, for If-Match")}
LOCATION = {"Location": _header("The path of the new resource")}
REQUEST_ID = {"X-Request-Id": _header("The id of the request, which log lines, problems and events have as well")}
RETRY_AFTER = {"Retry-After": _header("Send the request again after this many seconds")}
