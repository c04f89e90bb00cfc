"""Connections that end on time: all reads and writes of one exchange share one deadline.

httpcore bounds each read alone, so a server that sends a byte now and then could keep a thread for ever. It also passes
over informational responses (1xx) without end, so a server that sends nothing else could keep a processor busy. The
time that resolving a name takes is not bounded here: the system's resolv.conf says how long it may take.
"""

import ssl
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import httpcore

import worker.deadline
from domain.runtime.settings import Network
from worker.http import egress

#: The bytes that a server may send until the head of its response is over. Most servers and proxies allow half of this
#: or less for the headers of a response. It is room for 1,200 informational responses, which take some 10 ms to read.
MAX_HEAD_BYTES = 32_768

#: The reads of one exchange. A server that writes each header by itself needs a tenth of them.
MAX_READS = 1_000


class Deadline(worker.deadline.Deadline):
    """A deadline that raises an error of httpcore, and what may be read until then."""

    _head_bytes = _reads = 0
    _head_ended = False

    def start(self, timeout_seconds: float) -> None:
        super().start(timeout_seconds)
        self._head_bytes = self._reads = 0
        self._head_ended = False

    def end_head(self) -> None:
        """Have the following reads counted as those of a body, whose bytes the caller bounds."""
        self._head_ended = True

    def shorten(self, seconds: float) -> None:
        """End the exchange after this many seconds, unless the deadline is earlier."""
        self.at = min(self.at, time.monotonic() + seconds)

    def readable_bytes(self, wanted: int) -> int:
        """Return how many of these bytes the next read may take. Raises httpcore.ProtocolError if it may take none."""
        if self._reads == MAX_READS:
            raise httpcore.ProtocolError(f"the answer came in more than {MAX_READS:,} parts")
        if self._head_ended:
            return wanted
        if self._head_bytes == MAX_HEAD_BYTES:
            raise httpcore.ProtocolError(f"the headers of the answer did not end within {MAX_HEAD_BYTES:,} bytes")
        return min(wanted, MAX_HEAD_BYTES - self._head_bytes)

    def count_read(self, read_bytes: int) -> None:
        self._reads += 1
        self._head_bytes += 0 if self._head_ended else read_bytes

    def remaining_seconds(self) -> float:
        """Return the seconds until the deadline. Raises httpcore.ReadTimeout if it has passed."""
        try:
            return super().remaining_seconds()
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from None


class Backend(httpcore.SyncBackend):
    """Opens connections that keep to the deadline of the thread that uses them.

    It tries the addresses of a host one after the other. Each gets an equal part of the time that is left, so that an
    address which swallows packets leaves some to the next one. The last address gets all of it. An address that
    connected after others had failed is tried first from then on, so that the others take no time of later exchanges.
    While no address fails, the order is that of the resolver, which may distribute connections among the addresses.

    With `allowed`, it connects only to public addresses and into those networks; with None, to any address.
    """

    def __init__(self, deadline: Deadline, allowed: Sequence[Network] | None) -> None:
        self._deadline = deadline
        self._allowed = allowed
        #: By host and port, the address that connected after others had failed.
        self._preferred: dict[tuple[str, int], str] = {}

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        self._deadline.opened = True
        addresses = self._in_order(host, port)
        stream, address = self._connect_one(addresses, port, local_address, socket_options)
        if address != addresses[0]:
            self._preferred[host, port] = address
        return _Stream(stream, self._deadline)

    def _in_order(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host that may be called, the preferred one first if it still is among them."""
        preferred = self._preferred.get((host, port))
        return sorted(egress.resolve(host, port, self._allowed), key=lambda address: address != preferred)

    def _connect_one(self, addresses: Sequence[str], port: int, *options: Any) -> tuple[httpcore.NetworkStream, str]:
        """Connect to the first of the addresses that can be connected to, and return it as well."""
        *others, last = addresses
        for tried, address in enumerate(others):
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                part = self._deadline.remaining_seconds() / (len(others) + 1 - tried)
                return super().connect_tcp(address, port, part, *options), address
        return super().connect_tcp(last, port, self._deadline.remaining_seconds(), *options), last


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        readable_bytes = self._deadline.readable_bytes(max_bytes)
        read = self._stream.read(readable_bytes, self._deadline.remaining_seconds())
        self._deadline.count_read(len(read))
        return read

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
