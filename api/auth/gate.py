"""The gate: whatever front a request comes through, here it is limited, and found out who has sent it."""

from dataclasses import dataclass, replace

from api.auth.credentials import Credentials
from api.auth.limits.addresses import Address, Addresses
from api.auth.limits.limits import Limits
from api.auth.tokens import Expired
from domain.access import ANONYMOUS, Principal, Role, reach_of
from domain.runtime.errors import KeysUnavailable, NotAuthenticated
from domain.runtime.settings import Settings

#: With AUTH=none everybody may do everything.
ANYBODY = Principal(ANONYMOUS.client_id, roles=frozenset({Role.ADMIN}))

#: Who waits for keys, of the identity provider or of machines, waits no longer than this.
WAIT_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Gate:
    """What checks credentials, None if the settings ask for none, what limits requests, and what reads addresses.

    Safe for threads.
    """

    credentials: Credentials | None
    limits: Limits
    addresses: Addresses

    @classmethod
    def of(cls, settings: Settings) -> "Gate":
        """Return the gate that the settings ask for. Raises ConfigurationError."""
        return cls(Credentials.of(settings), Limits.of(settings), Addresses(settings.trusted_proxies))

    def start(self) -> None:
        """Begin to read what credentials are checked by, and to share counts with other processes."""
        self.limits.start()
        if self.credentials:
            self.credentials.start()

    def stop(self) -> None:
        """Read and share no more."""
        self.limits.stop()
        if self.credentials:
            self.credentials.stop()

    def principal_of(self, authorization: str | None, address: Address, *, again: bool = False) -> Principal:
        """Return who has sent a request with this header `Authorization`, or without one, from an address.

        Requests without credentials that can be used are counted. Raises NotAuthenticated, Exceeded, KeysUnavailable
        and, unless it is done again, Missing.
        """
        if self.credentials is None:
            return ANYBODY
        if authorization is None:
            self.limits.of_failure(address.sender)
            return ANONYMOUS
        has_failed_often = self.limits.has_failed_often(address)
        if has_failed_often and not self.credentials.known(authorization):
            self.limits.of_check(address)
        try:
            # Who has failed too often is refused at once: the keys are not read for it.
            return self.credentials.check(authorization, again=again or has_failed_often)
        except Expired as error:
            # A client renews its token when it gets 401. Others at its address have no say in that.
            self.limits.of_failure(f"expired {error.sender}")
            raise NotAuthenticated(str(error)) from None
        except NotAuthenticated:
            self.limits.of_failure(address.sender)
            raise

    def lapse_of(self, authorization: str | None) -> NotAuthenticated | None:
        """Return why a header that was accepted before is refused now, or None if it counts still.

        It takes only a moment. While the keys that decide it can't be read, it counts.
        """
        if self.credentials is None or authorization is None:
            return None
        try:
            self.credentials.check(authorization, again=True)
        except NotAuthenticated as lapse:
            return lapse
        except Expired as error:
            return NotAuthenticated(str(error))
        except KeysUnavailable:
            return None
        return None


def acting_for(principal: Principal, client_id: str | None) -> Principal:
    """Return a principal as it acts for the client that its request names, if it names one. Raises NotAllowed."""
    if client_id is None or client_id == principal.client_id:
        return principal
    reach_of(principal, "clients.act-for")
    # With AUTH=none, the name that they give is all that is known of them.
    return replace(principal, client_id=client_id) if principal is ANYBODY else principal.acting_for(client_id)
