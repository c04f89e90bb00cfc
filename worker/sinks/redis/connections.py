"""Connections to Redis that end on time: all that is sent and read for one pipeline shares one deadline.

redis-py bounds each read alone, so a Redis that sends a byte now and then could keep a thread for ever. It does not
bound what it keeps of a reply either.
"""

import socket
from typing import Any

from redis import Connection, SSLConnection, UnixDomainSocketConnection

import worker.deadline

#: What may be read for one pipeline, in bytes. The reply to an entry has some 25, and an error a few hundred.
MOST_BYTES = 1_000_000


class Deadline(worker.deadline.Deadline):
    """A deadline, and a limit for what is read until then."""

    _read_bytes = 0

    def start(self, timeout_seconds: float) -> None:
        super().start(timeout_seconds)
        self._read_bytes = 0

    def count(self, read_bytes: int) -> None:
        """Note what was read. Raises OSError if that is too much: it would be kept in memory."""
        self._read_bytes += read_bytes
        self.answered = self.answered or read_bytes > 0
        if self._read_bytes > MOST_BYTES:
            raise OSError(f"Redis sent more than {MOST_BYTES:,} bytes")


class _Bounded:
    """What the kinds of connections have in common. redis-py waits no longer than these properties say."""

    def __init__(self, *, deadline: Deadline, **options: Any) -> None:
        self._deadline = deadline
        super().__init__(**options)

    @property
    def socket_timeout(self) -> float:
        """While a connection is opened: at most until the deadline, for all addresses of the host together."""
        return self._deadline.remaining_seconds()

    @socket_timeout.setter
    def socket_timeout(self, _: float | None) -> None:
        """Take no other value than the deadline."""

    socket_connect_timeout = socket_timeout

    def _connect(self) -> "_Socket":
        self._deadline.opened = True
        connected: socket.socket = super()._connect()  # type: ignore[misc]
        return _Socket(connected, self._deadline)


class _Socket:
    """A socket of which each read and write ends at the deadline of the thread that uses it."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._connected = connected
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._connected.settimeout(self._deadline.remaining_seconds())
        self._connected.sendall(data)

    def recv_into(self, buffer: bytearray) -> int:
        self._connected.settimeout(self._deadline.remaining_seconds())
        count = self._connected.recv_into(buffer)
        self._deadline.count(count)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connected, name)


# mypy wants the properties to take what they return.
class _Tcp(_Bounded, Connection):  # type: ignore[misc]
    pass


class _Tls(_Bounded, SSLConnection):  # type: ignore[misc]
    pass


class _Unix(_Bounded, UnixDomainSocketConnection):  # type: ignore[misc]
    pass


#: The class of the connections, by the scheme of the URL. Each takes a `deadline` besides redis-py's own options.
BOUNDED = {"redis": _Tcp, "rediss": _Tls, "unix": _Unix}
