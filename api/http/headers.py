"""The headers of requests and of responses: how they are read, and how the OpenAPI document describes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from litestar import Request
from litestar.openapi.spec import OpenAPIHeader, OpenAPIType, Parameter, Schema

from api.http import request_ids, tracing
from api.http.tracing import READS
from api.senders import TRACE_CONTEXT, key_in
from domain.access import Principal
from domain.idempotency import Key
from domain.runtime.errors import Invalid


def principal_of(scope: Mapping[str, Any]) -> Principal:
    """Return the sender of a request, who was found out before the request was routed."""
    principal: Principal = scope["principal"]
    return principal


def key_of(scope: Mapping[str, Any], operation: str) -> Key | None:
    """Return the idempotency key of a request, quoted or not, for its sender and this operation. Raises Invalid."""
    written = header_of(scope, "Idempotency-Key")
    if written is None:
        return None
    return Key(principal_of(scope).client_id, operation, key_in(written, "Idempotency-Key"))


def require_key(request: Request[Any, Any, Any]) -> None:
    """Raise Invalid if a request may change something and has no idempotency key."""
    may_change = request.method not in READS and not request.route_handler.opt.get("only_reads")
    if may_change and "idempotency-key" not in request.headers:
        raise Invalid("Idempotency-Key", "this header is required (REQUIRE_IDEMPOTENCY_KEYS)")


def header_of(scope: Mapping[str, Any], name: str) -> str | None:
    """Return the value of a header, or None without one. Raises Invalid if it is given more than once."""
    values = _values(scope, name)
    if len(values) > 1:
        raise Invalid(name, "this header is given more than once")
    return values[0] if values else None


def _values(scope: Mapping[str, Any], name: str) -> Sequence[str]:
    # The framework's own headers take longer to make than all else that is read of them.
    wanted = name.lower().encode()
    return [value.decode("latin-1") for given, value in scope["headers"] if given == wanted]


def trace_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return what connects events to the request that caused them: its W3C trace context and its id.

    The trace context is that of our own span if traces are wanted, otherwise the one that the client sent.
    """
    trace = tracing.current() or next(iter(_values(scope, "traceparent")), "")
    found = {"traceparent": trace} if TRACE_CONTEXT.fullmatch(trace) else {}
    request_id = request_ids.current()
    return found | {"correlation_id": request_id} if request_id else found


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
    description="The client for whom the sender acts, if it may: idempotency keys and reservations belong to it",
    schema=Schema(type=OpenAPIType.STRING, min_length=1, max_length=255, pattern="^[ -~]+$"),
)
SENT_REQUEST_ID = Parameter(
    name="X-Request-Id",
    param_in="header",
    description="The id of the request. One that does not have 1 to 128 visible ASCII characters is replaced",
    schema=Schema(type=OpenAPIType.STRING),
)

LAST_EVENT_ID = Parameter(
    name="Last-Event-ID",
    param_in="header",
    description="The `id` of the last event seen. Clients of streams send it when they connect again. It counts for"
    " more than `after`",
    schema=Schema(type=OpenAPIType.STRING, pattern="^[0-9]{1,18}$"),
)


def _header(description: str) -> OpenAPIHeader:
    return OpenAPIHeader(description=description, schema=Schema(type=OpenAPIType.STRING))


#: The headers of responses, likewise.
REPLAYED = {"Idempotency-Replayed": _header("`true` if this is the stored answer to an earlier request")}
ETAG = {"ETag": _header("The version, for If-Match")}
PREFERENCE_APPLIED = {"Preference-Applied": _header("`wait=…` if the answer has waited for the booking to be settled")}
LOCATION = {"Location": _header("The path of the new resource")}
REQUEST_ID = {"X-Request-Id": _header("The id of the request, which log lines, problems and events have as well")}
RETRY_AFTER = {"Retry-After": _header("Send the request again after this many seconds")}
