"""Idempotency keys of bookings: in the header or, as the booking contract has it, in the body."""

from collections.abc import Mapping
from typing import Any

from api.http.headers import key_of, principal_of
from domain.idempotency import Key
from domain.runtime.errors import Invalid


def key_with(given: str | None, scope: Mapping[str, Any], operation: str) -> Key | None:
    """Return the key of a request for this operation, `given` in its body or in its header. Raises Invalid."""
    in_header = key_of(scope, operation)
    if given is None:
        return in_header
    if in_header is not None and in_header.key != given:
        raise Invalid("idempotency_key", "it differs from the header Idempotency-Key; give one of them")
    return Key(principal_of(scope).client_id, operation, given)
