"""Authentication over HTTP: each request gets the principal that has sent it, before anything of it is read.

Requests that are too many are refused here as well: those of an address before its credentials are looked at.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from api.auth.edge_operations import EdgeOperations
from api.auth.gate import WAIT_SECONDS, Gate, acting_for
from api.auth.limits.addresses import Address
from api.auth.limits.limits import Exceeded
from api.auth.limits.rates import ADDRESS, FAILED
from api.auth.refreshed import Missing
from api.auth.too_many import TooMany
from api.http import problems
from api.http.asgi import Application, Receive, Scope, Send
from api.http.edge.exchanges import refuse
from api.http.headers import header_of
from api.senders import client_named
from domain.access import ANONYMOUS, Principal, Reach, reach_of
from domain.runtime.errors import Invalid, KeysUnavailable, NotAllowed, NotAuthenticated

FORWARDED = b"x-forwarded-for"

#: The requests that wait for keys. When they are read, all of these go on at once.
MOST_WAITING = 256

ADVICE = (
    "Requests from this address are refused as too many, and some name another sender in X-Forwarded-For. If it is your"
    " proxy, set TRUSTED_PROXIES: without that, all of its clients share the limits of one address."
)

log = structlog.get_logger()


class Authentication:
    """An ASGI application that finds out who has sent each request, and calls another one."""

    def __init__(self, app: Application, gate: Gate, operations: EdgeOperations) -> None:
        self._app = app
        self._gate = gate
        self._operations = operations
        self._too_many = TooMany()
        self._waiting = 0
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, unless the request is too many, or names its client in a way that can't be used."""
        if scope["type"] == "http":
            try:
                await self._admit(scope)
            except (Invalid, NotAllowed) as error:
                await refuse(problems.body_of(error), send)
                return
            except Exceeded as exceeded:
                self._warn_of_proxy(scope, exceeded)
                await self._too_many.refuse(scope, exceeded, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        """Note who has sent a request. Raises Exceeded, NotAllowed and Invalid."""
        address = self._address(scope)
        scope["sender_address"] = address.sender
        self._gate.limits.of_address(address)
        if self._operations.is_open(scope):
            # Whoever sends it, nobody looks at credentials: to check those that are wrong costs time.
            scope["principal"] = ANONYMOUS
            return
        try:
            scope["principal"] = await self._principal(scope, address)
        except (NotAuthenticated, KeysUnavailable) as error:
            # What is not open to anybody is refused when its operation is known.
            scope["principal"], scope["not_authenticated"] = ANONYMOUS, error
        except (Invalid, NotAllowed):
            self._gate.limits.of_failure(address.sender)
            raise
        self._gate.limits.of_sender(scope["principal"], address, self._operations.of(scope))

    def _warn_of_proxy(self, scope: Scope, exceeded: Exceeded) -> None:
        """Say once that all clients of a proxy may be taken for one, if the limit of an address is used up."""
        is_of_address = exceeded.error.limit in (ADDRESS, FAILED)
        if is_of_address and not self._has_warned and any(name == FORWARDED for name, _ in scope["headers"]):
            self._has_warned = True
            log.warning("rate_limits.proxy_not_trusted", address=scope["sender_address"], advice=ADVICE)

    def _address(self, scope: Scope) -> Address:
        client = scope.get("client")
        forwarded = (value.decode("latin-1") for name, value in scope["headers"] if name == FORWARDED)
        return self._gate.addresses.of(client[0] if client else "", forwarded)

    async def _principal(self, scope: Scope, address: Address) -> Principal:
        """Return who has sent a request. Raises Exceeded, NotAuthenticated, KeysUnavailable, NotAllowed and Invalid."""
        given = header_of(scope, "Authorization")
        try:
            principal = self._gate.principal_of(given, address)
        except Missing as missing:
            await self._wait(missing)
            principal = self._gate.principal_of(given, address, again=True)
        return acting_for(principal, client_named(header_of(scope, "X-Client-Id"), "X-Client-Id"))

    async def _wait(self, missing: Missing) -> None:
        """Wait until keys were read once more. Raises KeysUnavailable if they can't be, or if too many wait."""
        if self._waiting >= MOST_WAITING:
            raise KeysUnavailable
        self._waiting += 1
        try:
            done, _ = await asyncio.wait([asyncio.wrap_future(missing.read)], timeout=WAIT_SECONDS)
        finally:
            self._waiting -= 1
        if not done:
            raise KeysUnavailable


def reach_in(scope: Mapping[str, Any], operation: str) -> Reach:
    """Return what the sender of a request may use an operation on.

    Raises NotAuthenticated, KeysUnavailable, NotAllowed.
    """
    try:
        return reach_of(scope["principal"], operation)
    except NotAuthenticated as error:
        # What is wrong with its credentials, if it has any.
        raise scope.get("not_authenticated", error) from None
