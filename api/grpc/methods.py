"""The methods that the server has, by name. A call for which its group has no place is refused."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc

from api.grpc.calls import client_of, refusing
from api.grpc.groups import Group

if TYPE_CHECKING:
    from api.grpc.calls import Handler

#: The threads that refuse calls, which takes a moment.
REFUSING_THREADS = 2


class Methods(grpc.GenericRpcHandler):
    """Finds the handler of a call."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(REFUSING_THREADS, thread_name_prefix="refusing")
        self._methods: dict[str, tuple[Group, Handler, Handler]] = {}

    def add(self, service: str, group: Group, handlers: Mapping[str, "Handler"]) -> None:
        """Add methods of a service, whose calls share the places of a group."""
        for name, handler in handlers.items():
            self._methods[f"/{service}/{name}"] = group, handler, refusing(name, self._threads)

    def service(self, details: grpc.HandlerCallDetails) -> "Handler | None":
        """Return the handler of a call, or the one that refuses it, or None if there is no such method.

        The library calls it on the one thread that receives all calls.
        """
        found = self._methods.get(details.method)
        if found is None:
            return None
        group, handler, refusal = found
        return handler if group.take(client_of(details.invocation_metadata)) else refusal
