"""Keep-alive connections to one server. The end of one that was kept open is no outage of the server."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import httpcore

from domain.runtime.settings import Network
from worker.http.deadlines import Backend, Deadline

#: A connection that was unused for longer is not used again, as the server may have closed it.
KEEPALIVE_SECONDS = 5.0

#: What httpcore raises when a connection breaks. Its errors have no common base class.
CONNECTION_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,  # raised as itself when a server sends too much: see worker.http.deadlines
    httpcore.UnsupportedProtocol,
)

#: What httpcore raises when a connection that was kept open breaks before the head of a response was read.
BROKEN = (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError)

Headers = Sequence[tuple[bytes | str, bytes | str]]


class Connections:
    """At most this many connections, which keep to the deadline of the thread that uses them. Safe for threads.

    The server must be at a public address or in one of the `allowed` networks; with None it may be anywhere.
    """

    def __init__(
        self,
        deadline: Deadline,
        *,
        connections: int,
        allowed: Sequence[Network] | None = None,
        context: ssl.SSLContext | None = None,
        proxy: httpcore.Proxy | None = None,
    ) -> None:
        self._deadline = deadline
        backend = Backend(deadline, allowed)
        self._kept = httpcore.ConnectionPool(
            context, proxy, connections, keepalive_expiry=KEEPALIVE_SECONDS, network_backend=backend
        )
        #: Each connection of this pool is used once.
        self._fresh = httpcore.ConnectionPool(
            context, proxy, connections, max_keepalive_connections=0, network_backend=backend
        )

    @contextmanager
    def stream(
        self, method: bytes | str, url: httpcore.URL | str, headers: Headers, content: bytes
    ) -> Iterator[httpcore.Response]:
        """Send a request, and give the block its response, of which the head has been read.

        If the request went out on a kept connection that broke, it is sent once more on a new one. Raises one of
        CONNECTION_ERRORS.
        """
        with ExitStack() as stack:
            try:
                response = stack.enter_context(self._kept.stream(method, url, headers=headers, content=content))
            except BROKEN:
                # A server may close a connection at any moment after a response, so this says nothing about the
                # server. If it did get the request, it gets it twice, with the same ids: deliveries are at least once.
                if self._deadline.opened:
                    raise
                response = stack.enter_context(self._fresh.stream(method, url, headers=headers, content=content))
            self._deadline.end_head()
            yield response

    def close(self) -> None:
        self._kept.close()
        self._fresh.close()
