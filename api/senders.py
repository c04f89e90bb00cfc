"""What a request says about its sender, over HTTP and gRPC alike: its client, and its idempotency key."""

import re

from domain.access import ANONYMOUS, Principal
from domain.runtime.errors import Invalid

#: What names and keys consist of. What is sent on to consumers in the headers of events has the same form.
PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")


def principal_named(written: str | None, field: str) -> Principal:
    """Return the sender whose client has this name, or nobody in particular. `field` is where it is. Raises Invalid."""
    if written is None:
        return ANONYMOUS
    return Principal(_printable(written, field))


def key_in(written: str, field: str) -> str:
    """Return an idempotency key, quoted or not. `field` is where it is. Raises Invalid."""
    quoted = len(written) >= 2 and written[0] == written[-1] == '"'
    return _printable(written[1:-1] if quoted else written, field)


def _printable(written: str, field: str) -> str:
    if not PRINTABLE.fullmatch(written):
        raise Invalid(field, "it must have 1 to 255 printable ASCII characters")
    return written
