"""The methods that the server has, by name. A call for which its group has no place is refused."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc

from api.auth.gate import Gate
from api.grpc.calls import client_of, refusing
from api.grpc.groups import Group

if TYPE_CHECKING:
    from api.grpc.calls import Handler, Handlers

#: The threads that refuse calls, which takes a moment.
REFUSING_THREADS = 2


class Methods(grpc.GenericRpcHandler):
    """Finds the handler of a call."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._threads = ThreadPoolExecutor(REFUSING_THREADS, thread_name_prefix="refusing")
        self._methods: dict[str, tuple[Group, Handlers, Handler]] = {}

    def add(self, service: str, group: Group, handlers: Mapping[str, "Handlers"]) -> None:
        """Add methods of a service, whose calls share the places of a group."""
        for name, of_client in handlers.items():
            self._methods[f"/{service}/{name}"] = group, of_client, refusing(name, self._threads)

    def service(self, details: grpc.HandlerCallDetails) -> "Handler | None":
        """Return the handler of a call, or the one that refuses it, or None if there is no such method.

        The library calls it on the one thread that receives all calls.
        """
        found = self._methods.get(details.method)
        if found is None:
            return None
        group, of_client, refusal = found
        client = client_of(details.invocation_metadata, self._gate)
        return of_client(client) if group.take(client) else refusal
