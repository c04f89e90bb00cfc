"""What the headers of a request say about who asks, whether again, and about which version."""

import hashlib
import re
from typing import Any

import msgspec
from litestar import Request

from api.http import tracing
from domain.idempotency.stored_answers import Key
from domain.runtime.errors import Invalid

#: The scope of keys for clients that do not name themselves.
ANONYMOUS = "anonymous"

_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")
_ETAG = re.compile(r'(?:W/)?"?(\d{1,9})"?')


def client_of(request: Request[Any, Any, Any]) -> str:
    """Return the client that keys belong to: the header X-Client-Id. Raises Invalid."""
    client = request.headers.get("x-client-id", ANONYMOUS)
    if not _PRINTABLE.fullmatch(client):
        raise Invalid("X-Client-Id", "it must have 1 to 255 printable ASCII characters")
    return client


def key_of(request: Request[Any, Any, Any], operation: str) -> Key | None:
    """Return the idempotency key of a request, quoted or not, in its scope. Raises Invalid."""
    written = request.headers.get("idempotency-key")
    if written is None:
        return None
    quoted = len(written) >= 2 and written[0] == written[-1] == '"'
    key = written[1:-1] if quoted else written
    if not _PRINTABLE.fullmatch(key):
        raise Invalid("Idempotency-Key", "it must have 1 to 255 printable ASCII characters")
    return Key(client_of(request), operation, key)


def hash_of(*parts: object) -> str:
    """Return the SHA-256, in hex, of what a request asks for: the order of its fields is no difference."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def version_of(request: Request[Any, Any, Any]) -> int | None:
    """Return the version that If-Match names, None for any. Raises Invalid."""
    written = request.headers.get("if-match", "*").strip()
    if written == "*":
        return None
    etag = _ETAG.fullmatch(written)
    if etag is None:
        raise Invalid("If-Match", 'it must be * or one ETag, such as "3"')
    return int(etag[1])


def trace_of(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Return what ties the events of a request to it: its W3C trace context and its correlation id.

    The context is that of our own span if traces are wanted, else the one that was sent.
    """
    names = {"traceparent": "traceparent", "x-request-id": "correlation_id"}
    found = {ours: request.headers.get(theirs) for theirs, ours in names.items()}
    found["traceparent"] = tracing.current() or found["traceparent"]
    return {name: value[:255] for name, value in found.items() if value and _PRINTABLE.fullmatch(value[:255])}
