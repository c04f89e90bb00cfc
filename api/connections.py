"""The connections of a server that keep others out: those without a request, and those of an address with too many.

The libraries that serve accept whoever comes, and know no limit of an address. One address that opens all connections
that there may be, and sends nothing, would keep everybody else out. But each connection is a file of this process: so
a thread looks at them every second, and ends some.
"""

import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import structlog

from api.auth.limits.addresses import Addresses
from domain.runtime.metrics import Counter
from domain.runtime.rounds import isolate_round

#: A connection whose client has sent no whole request head for this time after it was opened is ended.
FIRST_REQUEST_SECONDS = 5.0

#: A process that has not looked for this time was frozen.
FROZEN_SECONDS = 5.0

#: When half of the connections are open that there may be, an address may have a quarter of all: three addresses cannot
#: keep everybody else out. A gateway whose address is in TRUSTED_PROXIES may have all of them.
CROWDED_PART, PART_OF_ADDRESS = 1 / 2, 1 / 4

#: How often connections are looked at, and the part of a processor's time that this takes at most. A look takes some
#: 6 ms for each 1,000 connections.
LOOK_SECONDS, LOOK_PART = 1.0, 1 / 30

#: The same for some time after connections of an address were ended. That address may open thousands of others in a
#: second, so for this time no address may have more than a quarter, however few connections there are.
ALERT_SECONDS, ALERT_LOOK_SECONDS, ALERT_LOOK_PART = 30.0, 0.05, 1 / 2

#: While connections of an address are ended all the time, this is logged so often.
WARNING_SECONDS = 10.0

#: The addresses that such a warning names at most.
MOST_NAMED = 10

#: The files of this process, by their numbers.
FILES = "/dev/fd"

ADVICE = (
    "These connections were the newest of an address that had a quarter of all connections that this process may have."
    " Limit the connections of an address at your gateway, or in the firewall. If the address is that of your gateway,"
    " add it to TRUSTED_PROXIES."
)

UNUSED = Counter(
    "holdfast_connections_without_request",
    f"Connections that were ended because no whole request head had come within {FIRST_REQUEST_SECONDS:g} s.",
)
CROWDING = Counter(
    "holdfast_connections_crowding",
    "Connections that were ended because their address had a quarter of all that a process may have. Alert on any"
    " increase: somebody tries to take them all, or a gateway is not in TRUSTED_PROXIES.",
)

log = structlog.get_logger()

#: How an address of IPv4 begins that a socket of IPv6 has.
MAPPED = "::ffff:"

#: The address and the port of the other end.
Peer = tuple[str, int]

#: A peer, and the address of this machine to which it is connected: it may be connected to several by one port.
Connection = tuple[str, int, str]


class Connections:
    """Looks at the connections that this process has accepted at a host and port, of which there may be `most`.

    If `needs_request`, those are ended as well on which no request comes in time.
    """

    def __init__(self, host: str, port: int, most: int, addresses: Addresses, *, needs_request: bool) -> None:
        address = _plain(host)
        #: None is any address of this machine.
        self._host = None if address.is_unspecified else str(address)
        self._port = port
        self._most = most
        self._addresses = addresses
        self._needs_request = needs_request
        #: When each connection was seen first.
        self._seen: Mapping[Connection, float] = {}
        self._looked_at = time.monotonic()
        #: Those on which a request has come. Other threads add to them.
        self._used: set[Peer] = set()
        self._alert_until = self._warn_at = 0.0
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connections", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._is_stopped.set()

    def use(self, peer: Peer) -> None:
        """Note that a request has come on the connection of this peer."""
        self._used.add(peer)

    def look(self) -> None:
        """Look at all connections once, and end those that keep others out."""
        now, used = time.monotonic(), self._used.copy()
        files = self._open()
        # What was used before this look and is not among them has been closed.
        self._used -= used - {connection[:2] for connection in files}
        if now > self._looked_at + FROZEN_SECONDS:
            # What came meanwhile is not read yet.
            self._seen = {}
        self._seen, self._looked_at = {connection: self._seen.get(connection, now) for connection in files}, now
        if self._needs_request:
            UNUSED.inc(_end(files, self._unused(now)))
        if crowding := self._crowding(now):
            self._end_crowding(files, crowding, now)

    def _run(self) -> None:
        rest = LOOK_SECONDS
        while not self._is_stopped.wait(rest):
            before = time.thread_time()
            isolate_round(self.look, thread=self._thread.name, advice="Connections stay open for longer.")
            rest = self._rest_after(time.thread_time() - before)

    def _rest_after(self, computed_seconds: float) -> float:
        """Return for how long nobody looks, after a look that took so much of the processor's time."""
        if time.monotonic() < self._alert_until:
            return max(ALERT_LOOK_SECONDS, computed_seconds * (1 / ALERT_LOOK_PART - 1))
        return max(LOOK_SECONDS, computed_seconds * (1 / LOOK_PART - 1))

    def _unused(self, now: float) -> Collection[Connection]:
        """Return those without a request. A gateway that is trusted may connect before it has any."""
        return [
            connection
            for connection, seen in self._seen.items()
            if connection[:2] not in self._used
            and now > seen + FIRST_REQUEST_SECONDS
            and not self._addresses.of(connection[0], ()).is_trusted
        ]

    def _crowding(self, now: float) -> Collection[Connection]:
        """Return the newest connections of the addresses that have too many."""
        if len(self._seen) <= self._most * CROWDED_PART and now >= self._alert_until:
            return ()
        by_sender: dict[str, list[Connection]] = defaultdict(list)
        for connection in sorted(self._seen, key=self._seen.__getitem__):
            address = self._addresses.of(connection[0], ())
            if not address.is_trusted:
                by_sender[address.sender].append(connection)
        share = int(self._most * PART_OF_ADDRESS)
        return [connection for several in by_sender.values() for connection in several[share:]]

    def _end_crowding(self, files: Mapping[Connection, int], crowding: Collection[Connection], now: float) -> None:
        ended = _end(files, crowding)
        CROWDING.inc(ended)
        self._alert_until = now + ALERT_SECONDS
        if now >= self._warn_at:
            self._warn_at = now + WARNING_SECONDS
            addresses = sorted({address for address, *_ in crowding})[:MOST_NAMED]
            log.warning("connections.crowding", ended=ended, addresses=addresses, advice=ADVICE)

    def _open(self) -> Mapping[Connection, int]:
        """Return the connections that were accepted here, each with the number of its file."""
        found: dict[Connection, int] = {}
        for name in os.listdir(FILES):
            # What is no connection, or has been closed meanwhile, raises an error.
            with suppress(OSError):
                if connection := self._connection_at(int(name)):
                    found[connection] = int(name)
        return found

    def _connection_at(self, file: int) -> Connection | None:
        """Return which connection a file is, or None if it was not accepted here. Raises OSError."""
        opened = socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=file)
        try:
            # Another connection may have the same port: one of this process to a server, from another address.
            own = opened.getsockname()
            return _connection(opened.getpeername(), own) if self._is_here(own) else None
        finally:
            # The file belongs to the server: it must stay open.
            opened.detach()

    def _is_here(self, own: Any) -> bool:
        """Return whether a socket has the address and port at which is listened. That of a Unix socket is a text."""
        return own[1:2] == (self._port,) and self._host in (None, own[0].removeprefix(MAPPED))


def _plain(host: str) -> IPv4Address | IPv6Address:
    """Return an address. One of IPv4 that is written as one of IPv6 is one of IPv4."""
    address = ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address


def _connection(peer: Any, own: Any) -> Connection:
    return peer[0], peer[1], own[0]


def _end(files: Mapping[Connection, int], connections: Iterable[Connection]) -> int:
    """End these connections. Return how many."""
    ended = 0
    for connection in connections:
        with suppress(OSError), _copy_of(files[connection]) as opened:
            if _connection(opened.getpeername(), opened.getsockname()) == connection:
                opened.shutdown(socket.SHUT_RDWR)
                ended += 1
    return ended


def _copy_of(file: int) -> socket.socket:
    """Return a copy of a socket. Raises OSError if the file is none.

    The server may close the file at any time, and its number may be that of another one then. A copy stays what it is.
    """
    copy = os.dup(file)
    try:
        return socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=copy)
    except OSError:
        os.close(copy)
        raise
