"""The load: calls of gRPC, sent as fast as they are answered, and streams, read as fast as they come.

gRPC's own clients for Python take longer for a call than the server. So calls are written and read as frames of HTTP/2
here, as few of them as there can be. Source: RFC 9113, RFC 7541 and gRPC's "gRPC over HTTP2".
"""

import secrets
import selectors
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from benchmarks.reservations.load import SECONDS, Load

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
LARGEST_WINDOW = 2**31 - 1

#: The setting of how much the server may send of each stream.
INITIAL_WINDOW_SIZE = 4

#: How much is read at a time.
PART_BYTES = 1 << 20


@dataclass
class Connection:
    """A connection with one call at a time."""

    socket: socket.socket
    stream: int = -1
    began: float = 0.0
    has_message: bool = False
    unread: bytearray = field(default_factory=bytearray)


def send(
    port: int, method: str, next_message: Callable[[], bytes], *, connections: int, seconds: float = SECONDS
) -> Load:
    """Call a method as fast as that many connections can, each with one call at a time, and a key for each call."""
    fields, run, numbers = headers_of(f"127.0.0.1:{port}", method), secrets.token_hex(4), count()

    def call(one: Connection) -> None:
        _call(one, fields + _field("idempotency-key", f"{run}-{next(numbers)}"), next_message())

    times: list[float] = []
    refused = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            one = _connect(port)
            selector.register(one.socket, selectors.EVENT_READ, one)
            call(one)
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            for key, _ in selector.select(0.1):
                one = key.data
                for answered in _read(one):
                    times.append(time.monotonic() - one.began)
                    refused += not answered
                    call(one)
        for key in [*selector.get_map().values()]:
            key.data.socket.close()
    milliseconds = [1_000 * one for one in times]
    p99 = statistics.quantiles(milliseconds, n=100)[98]
    return Load(len(times) / seconds, statistics.median(milliseconds), p99, refused)


def stream(port: int, method: str, message: bytes) -> Iterator[int]:
    """Call a method that streams. Yield how many messages have come so far, whenever some have, until it ends.

    The server may send as much as it likes: what it streams is less than the largest window.
    """
    one, unread, messages = _connect(port), bytearray(), 0
    try:
        _call(one, headers_of(f"127.0.0.1:{port}", method), message)
        has_ended = False
        while not has_ended:
            for kind, flags, payload in _frames(one):
                unread += payload if kind == DATA else b""
                has_ended |= kind == HEADERS and bool(flags & END_STREAM)
            messages += _take_messages(unread)
            yield messages
    finally:
        one.socket.close()


def _take_messages(unread: bytearray) -> int:
    """Take the messages that have come as a whole. Return how many they are."""
    place = messages = 0
    while len(unread) >= place + 5 and len(unread) >= (
        end := place + 5 + int.from_bytes(unread[place + 1 : place + 5])
    ):
        place, messages = end, messages + 1
    del unread[:place]
    return messages


def _connect(port: int) -> Connection:
    connected = socket.create_connection(("127.0.0.1", port))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    window = struct.pack(">I", LARGEST_WINDOW - 65_535)
    settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, LARGEST_WINDOW)
    connected.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, window))
    return Connection(connected)


def _call(one: Connection, headers: bytes, message: bytes) -> None:
    one.stream, one.has_message, one.began = one.stream + 2, False, time.monotonic()
    one.socket.sendall(
        frame(HEADERS, END_HEADERS, one.stream, headers)
        + frame(DATA, END_STREAM, one.stream, struct.pack(">BI", 0, len(message)) + message)
    )


def _read(one: Connection) -> list[bool]:
    """Read what has arrived. Return for each call that ended whether it was answered with a message."""
    ended = []
    for kind, flags, _ in _frames(one):
        if kind == DATA:
            one.has_message = True
        elif kind == HEADERS and flags & END_STREAM:
            ended.append(one.has_message)
    return ended


def _frames(one: Connection) -> Iterator[tuple[int, int, bytes]]:
    """Read what has arrived. Yield the frames that are there as a whole: the kind, the flags and the payload of each.

    Frames of the connection itself are answered.
    """
    if not (part := one.socket.recv(PART_BYTES)):
        raise ConnectionError("the server has closed the connection")
    one.unread += part
    place = 0
    while len(one.unread) >= place + 9 and len(one.unread) >= (
        end := place + 9 + int.from_bytes(one.unread[place : place + 3])
    ):
        kind, flags, payload = one.unread[place + 3], one.unread[place + 4], bytes(one.unread[place + 9 : end])
        place = end
        if kind in (SETTINGS, PING) and not flags & ACK:
            one.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == GOAWAY:
            raise ConnectionError(f"the server sent GOAWAY: {payload!r}")
        yield kind, flags, payload
    del one.unread[:place]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers_of(authority: str, path: str) -> bytes:
    """Return the headers of a call. None of them enters the table of either side."""
    post, http, path_name, authority_name = b"\x83", b"\x86", b"\x04", b"\x01"
    fields = post + http + path_name + _text(path) + authority_name + _text(authority)
    return fields + _field("content-type", "application/grpc") + _field("te", "trailers")


def _field(name: str, value: str) -> bytes:
    return b"\x00" + _text(name) + _text(value)


def _text(written: str) -> bytes:
    assert len(written) < 127
    return bytes([len(written)]) + written.encode()
