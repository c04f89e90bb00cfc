"""Principals: whom a front, such as HTTP, has found to be the sender of a request."""

from dataclasses import dataclass, replace
from enum import StrEnum


class Role(StrEnum):
    """What somebody is to Holdfast. `domain.access.rights` says what each role may do."""

    GUEST = "guest"
    BUSINESS = "business"
    PROVIDER = "provider"
    STAFF = "staff"
    OPERATOR = "operator"
    ADMIN = "admin"


#: How the names of principals begin: USER with a token, KEY with an API key. No command records such a name.
USER, KEY = "user:", "key:"


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request.

    Its idempotency keys and the reservations that it makes belong to its client, and clients take turns. `guest_id` is
    the guest that it is, if it is one; `venues` and `providers` are those for which it acts. `actor` is its own
    name if it acts for another client.
    """

    client_id: str
    roles: frozenset[Role] = frozenset()
    guest_id: str | None = None
    venues: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()
    actor: str | None = None

    @property
    def name(self) -> str:
        """Who it is, for histories and audits."""
        return self.actor or self.client_id

    def acting_for(self, client_id: str) -> "Principal":
        """Return it as it acts for another client."""
        return replace(self, client_id=client_id, actor=self.name)


#: The principal of a request that names no client.
ANONYMOUS = Principal("anonymous")
