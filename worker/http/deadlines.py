"""Connections that end on time: all reads and writes of one exchange share one deadline.

httpcore bounds each read alone, so a server that sends a byte now and then could keep a thread for ever. The time
that resolving a name takes is not bounded here: the system's resolv.conf says how long it may take.
"""

import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import httpcore

import worker.deadline
from domain.runtime.settings import Network
from worker.http import egress


class Deadline(worker.deadline.Deadline):
    """A deadline that raises an error of httpcore."""

    def remaining_seconds(self) -> float:
        """Return the seconds until the deadline. Raises httpcore.ReadTimeout if it has passed."""
        try:
            return super().remaining_seconds()
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from None


class Backend(httpcore.SyncBackend):
    """Opens connections that keep to the deadline of the thread that uses them.

    It tries the addresses of a host one after the other. Each gets an equal part of the time that is left, so that an
    address which swallows packets leaves some to the next one. The last address gets all of it.

    With `allowed`, it connects only to public addresses and into those networks; with None, to any address.
    """

    def __init__(self, deadline: Deadline, allowed: Sequence[Network] | None) -> None:
        self._deadline = deadline
        self._allowed = allowed

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        self._deadline.opened = True
        *others, last = egress.resolve(host, port, self._allowed)
        for tried, address in enumerate(others):
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                part = self._deadline.remaining_seconds() / (len(others) + 1 - tried)
                return self._connected(address, port, part, local_address, socket_options)
        return self._connected(last, port, self._deadline.remaining_seconds(), local_address, socket_options)

    def _connected(self, address: str, port: int, timeout: float, *options: Any) -> httpcore.NetworkStream:
        return _Stream(super().connect_tcp(address, port, timeout, *options), self._deadline)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.remaining_seconds())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.remaining_seconds())

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._deadline.remaining_seconds())
        return _Stream(secured, self._deadline)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
