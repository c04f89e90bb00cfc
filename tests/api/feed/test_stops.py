"""Streams of a real server: they end with it, and a reader that reads nothing delays nobody."""

import fcntl
import re
import signal
import socket
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.http.limits import SEND_SECONDS
from domain.runtime.settings import Settings
from tests.support.api_process import Served, serving
from tests.support.builders import Db
from tests.support.feed import appended, many_events
from tests.support.sse import streaming
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

#: The most that a server takes to stop, as the documentation says.
STOP_SECONDS = 10.0

#: More than the buffers of a connection hold, in events of some 300 bytes.
MANY = 40_000


@pytest.fixture
def alone(settings: Settings, db: Db) -> Iterator[Served]:
    """A server of which nobody else knows."""
    with serving() as served:
        yield served


def a_silent_reader(served: Served) -> socket.socket:
    """A connection that asks for the whole feed, and reads nothing."""
    connection = socket.create_connection(("127.0.0.1", served.port))
    connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    return connection


def is_full(connection: socket.socket) -> bool:
    """Return whether nothing more arrives at a connection that nobody reads."""
    before = unread(connection)
    time.sleep(1)
    return 0 < before == unread(connection)


def unread(connection: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(connection, termios.FIONREAD, bytes(4)), sys.byteorder)


def metric(served: Served, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", served.client.get("/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


@pytest.mark.timed
def test_streams_end_when_the_server_stops(alone: Served, db: Db) -> None:
    appended(db, 3)

    with ThreadPoolExecutor(1) as elsewhere, streaming(alone.client) as idle, streaming(alone.client) as busy:
        assert len(idle.take(3)) == len(busy.take(3)) == 3
        began = time.monotonic()
        alone.process.send_signal(signal.SIGTERM)
        ends = [elsewhere.submit(stream.rest) for stream in (idle, busy)]
        assert alone.process.wait(60) == 0
        stopped_after = time.monotonic() - began
        assert [end.result() for end in ends] == [[], []]

    print(f"stopped after {stopped_after:.2f} s")
    assert stopped_after < STOP_SECONDS / 2
    assert alone.faults() == []


@pytest.mark.timed
def test_a_server_with_a_silent_reader_stops_in_time(alone: Served, db: Db) -> None:
    many_events(db, MANY)

    with a_silent_reader(alone) as silent:
        wait_until("its buffers are full", lambda: is_full(silent))
        began = time.monotonic()
        alone.process.send_signal(signal.SIGTERM)
        alone.process.wait(60)
        stopped_after = time.monotonic() - began

    print(f"stopped after {stopped_after:.2f} s")
    assert stopped_after < STOP_SECONDS


def test_a_silent_reader_is_cut_off_and_delays_no_other(alone: Served, db: Db) -> None:
    many_events(db, MANY)

    with a_silent_reader(alone) as silent:
        wait_until("the stream is open", lambda: metric(alone, "holdfast_feed_streams") == 1)
        with streaming(alone.client) as healthy:
            assert [int(one.id or 0) for one in healthy.take(MANY)] == list(range(1, MANY + 1))
        wait_until(
            "the silent reader is cut off",
            lambda: metric(alone, "holdfast_feed_streams_cut_off_total") == 1,
            within=SEND_SECONDS + 20,
        )
        wait_until("no stream is open", lambda: metric(alone, "holdfast_feed_streams") == 0)
        received = b"".join(iter(lambda: silent.recv(1_000_000), b""))

    assert len(received) < 20_000_000
    assert not received.endswith(b"0\r\n\r\n"), "a reader knows that the stream was cut off"
    assert alone.faults() == []
