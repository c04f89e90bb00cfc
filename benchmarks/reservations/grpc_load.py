"""The load: reservations over gRPC, sent as fast as they are answered.

gRPC's own clients for Python take longer for a call than the server. So calls are written and read as frames of HTTP/2
here, as few of them as there can be. Source: RFC 9113, RFC 7541 and gRPC's "gRPC over HTTP2".
"""

import selectors
import socket
import statistics
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.reservations.load import SECONDS, Load

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
LARGEST_WINDOW = 2**31 - 1


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
    """Call a method as fast as that many connections can, each with one call at a time."""
    headers = headers_of(f"127.0.0.1:{port}", method)
    times: list[float] = []
    refused = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            one = _connect(port)
            selector.register(one.socket, selectors.EVENT_READ, one)
            _call(one, headers, next_message())
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            for key, _ in selector.select(0.1):
                one = key.data
                for answered in _read(one):
                    times.append(time.monotonic() - one.began)
                    refused += not answered
                    _call(one, headers, next_message())
        for key in [*selector.get_map().values()]:
            key.data.socket.close()
    milliseconds = [1_000 * one for one in times]
    p99 = statistics.quantiles(milliseconds, n=100)[98]
    return Load(len(times) / seconds, statistics.median(milliseconds), p99, refused)


def _connect(port: int) -> Connection:
    connected = socket.create_connection(("127.0.0.1", port))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    window = struct.pack(">I", LARGEST_WINDOW - 65_535)
    connected.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(WINDOW_UPDATE, 0, 0, window))
    return Connection(connected)


def _call(one: Connection, headers: bytes, message: bytes) -> None:
    one.stream, one.has_message, one.began = one.stream + 2, False, time.monotonic()
    one.socket.sendall(
        frame(HEADERS, END_HEADERS, one.stream, headers)
        + frame(DATA, END_STREAM, one.stream, struct.pack(">BI", 0, len(message)) + message)
    )


def _read(one: Connection) -> list[bool]:
    """Read what has arrived. Return for each call that ended whether it was answered with a message."""
    one.unread += one.socket.recv(65_536)
    ended = []
    while len(one.unread) >= 9 and len(one.unread) >= 9 + (length := int.from_bytes(one.unread[:3], "big")):
        kind, flags, payload = one.unread[3], one.unread[4], bytes(one.unread[9 : 9 + length])
        del one.unread[: 9 + length]
        if kind in (SETTINGS, PING) and not flags & ACK:
            one.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == DATA:
            one.has_message = True
        elif kind == HEADERS and flags & END_STREAM:
            ended.append(one.has_message)
        elif kind == GOAWAY:
            raise ConnectionError(f"the server sent GOAWAY: {payload!r}")
    return ended


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers_of(authority: str, path: str) -> bytes:
    """Return the headers of a call. None of them enters the table of either side."""
    post, http, path_name, authority_name = b"\x83", b"\x86", b"\x04", b"\x01"
    fields = post + http + path_name + _text(path) + authority_name + _text(authority)
    for name, value in (("content-type", "application/grpc"), ("te", "trailers")):
        fields += b"\x00" + _text(name) + _text(value)
    return fields


def _text(written: str) -> bytes:
    assert len(written) < 127
    return bytes([len(written)]) + written.encode()
