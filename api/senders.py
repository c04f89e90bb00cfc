"""What a request says about its sender, over HTTP and gRPC alike: its client, and its idempotency key."""

import re

from domain.runtime.errors import Invalid

#: What names and keys consist of.
PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")

#: The trace context of W3C. Consumers get no other text for it, which might be anything.
TRACE_CONTEXT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def client_named(written: str | None, field: str) -> str | None:
    """Return the name of a client, if there is one. `field` is where it is. Raises Invalid."""
    return None if written is None else _printable(written, field)


def key_in(written: str, field: str) -> str:
    """Return an idempotency key, quoted or not. `field` is where it is. Raises Invalid."""
    quoted = len(written) >= 2 and written[0] == written[-1] == '"'
    return _printable(written[1:-1] if quoted else written, field)


def _printable(written: str, field: str) -> str:
    if not PRINTABLE.fullmatch(written):
        raise Invalid(field, "it must have 1 to 255 printable ASCII characters")
    return written
