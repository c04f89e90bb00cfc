"""Principals: whom a front, such as HTTP, has found to be the sender of a request."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request. Its idempotency keys and the reservations that it makes belong to its client."""

    client_id: str


#: The principal of a request that names no client.
ANONYMOUS = Principal("anonymous")
