"""Clients that send nothing, read nothing, or ask for too much: others are served, and the memory has a limit."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import psutil
import pytest

from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from api.grpc.query import STREAMS
from api.grpc.server import (
    GRACE_SECONDS,
    HANDSHAKE_MILLISECONDS,
    IDLE_MILLISECONDS,
    MOST_CALLS,
    MOST_CALLS_OF_CLIENT,
)
from benchmarks.reservations.grpc_load import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    frame,
    headers_of,
)
from domain.runtime.settings import Settings
from tests.api.grpc.requests import refused, reserving
from tests.api.grpc.test_deadlines import count, lock
from tests.api.grpc.test_query import many
from tests.support.builders import Db, a_calendar
from tests.support.crowds import Crowd
from tests.support.grpc_process import ServedGrpc, serving_grpc
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timed]

#: What the server may need for 1,000 connections, or for as many calls.
MOST_GROWTH_BYTES = 150_000_000

#: The files that a server may have, so that it has 1,000 connections.
MOST_FILES = 1_200

#: A healthy client's call is answered within this time, on a machine however busy.
SOON_SECONDS = 5.0

CLIENT = [("x-client-id", "healthy")]

#: The frame that ends a call early.
RST_STREAM = 3


@pytest.fixture(scope="module")
def hardy(settings: Settings) -> Iterator[ServedGrpc]:
    """A server of its own, as its memory and its log are looked at."""
    with serving_grpc() as served:
        yield served


@pytest.fixture
def healthy(hardy: ServedGrpc, db: Db) -> Iterator[ReservationServiceStub]:
    with hardy.calling() as stub:
        yield stub
    assert hardy.faults() == []


def memory(served: ServedGrpc) -> int:
    return int(psutil.Process(served.process.pid).memory_info().rss)


def connect(served: ServedGrpc) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=60)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
    return connection


def begin(served: ServedGrpc, connection: socket.socket, method: str, *, calls: int = 1) -> None:
    """Send the headers of calls, and none of their messages."""
    headers = headers_of(served.address, method)
    frames = (frame(HEADERS, END_HEADERS, 1 + 2 * number, headers) for number in range(calls))
    connection.sendall(b"".join(frames))


def query(served: ServedGrpc, connection: socket.socket) -> None:
    """Ask for all reservations, of which no more than 64 kB can be sent until something is read."""
    begin(served, connection, "/ReservationService/Query")
    connection.sendall(frame(DATA, END_STREAM, 1, bytes(5)))


def serves(healthy: ReservationServiceStub, start: int) -> None:
    """Make calls of every kind, each of which must be answered soon."""
    made = healthy.reserve(reserving(start, start + 1), timeout=SOON_SECONDS, metadata=CLIENT).reservation
    healthy.confirm(proto.ConfirmRequest(id=made.id), timeout=SOON_SECONDS, metadata=CLIENT)
    healthy.get(proto.GetRequest(id=made.id), timeout=SOON_SECONDS, metadata=CLIENT)
    healthy.cancel(proto.CancelRequest(id=made.id), timeout=SOON_SECONDS, metadata=CLIENT)


@contextmanager
def connections(served: ServedGrpc, number: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connect(served)) for _ in range(number)]


def test_others_are_served_beside_1000_connections_that_send_nothing(
    hardy: ServedGrpc, healthy: ReservationServiceStub
) -> None:
    before = memory(hardy)

    with connections(hardy, 1_000):
        for start in range(20):
            serves(healthy, start)
        grown = memory(hardy) - before

    print(f"{grown / 1e6:.0f} MB")
    assert grown < MOST_GROWTH_BYTES


@pytest.mark.parametrize(
    ("sent", "within"),
    [
        (b"", HANDSHAKE_MILLISECONDS),
        (PREFACE[:10], HANDSHAKE_MILLISECONDS),
        (PREFACE, HANDSHAKE_MILLISECONDS),
        (PREFACE + frame(SETTINGS, 0, 0, b""), IDLE_MILLISECONDS),
    ],
    ids=["nothing", "half a preface", "a preface", "no call"],
)
def test_a_connection_without_calls_is_closed(hardy: ServedGrpc, sent: bytes, within: int) -> None:
    with socket.create_connection(("127.0.0.1", hardy.port), timeout=60) as connection:
        began = time.monotonic()
        connection.sendall(sent)
        while connection.recv(1_000):
            pass
        took = time.monotonic() - began

    print(f"{took:.1f} s")
    assert took < within / 1_000 + SOON_SECONDS


@pytest.mark.parametrize("beginning", [b"", PREFACE + frame(SETTINGS, 0, 0, b"")], ids=["silent", "idle"])
def test_one_address_leaves_connections_to_others(settings: Settings, db: Db, beginning: bytes) -> None:
    """It opens more than there may be, again and again."""
    with serving_grpc(files=str(MOST_FILES)) as served:
        crowd = Crowd(served.port, MOST_FILES, beginning, address="127.0.0.2")
        with crowd:
            wait_until("some of it are ended", lambda: sum(crowd.answered.values()) > 2 * MOST_FILES)
            for start in range(20):
                with served.calling() as healthy:
                    serves(healthy, start)

    print(dict(crowd.answered))
    assert served.faults() == []


@pytest.mark.parametrize("method", ["reserve", "get", "Query"])
def test_others_are_served_beside_calls_whose_messages_never_come(
    hardy: ServedGrpc, healthy: ReservationServiceStub, method: str
) -> None:
    before = memory(hardy)

    with connections(hardy, 20) as many_connections:
        for connection in many_connections:
            begin(hardy, connection, f"/ReservationService/{method}", calls=100)
        for start in range(20):
            serves(healthy, start)
        grown = memory(hardy) - before

    print(f"{grown / 1e6:.0f} MB")
    assert grown < MOST_GROWTH_BYTES


def test_health_is_answered_beside_checks_whose_messages_never_come(hardy: ServedGrpc) -> None:
    with connections(hardy, 2) as (one, other):
        begin(hardy, one, "/grpc.health.v1.Health/Check", calls=100)
        begin(hardy, other, "/grpc.health.v1.Health/Watch", calls=100)
        wait_until("a check is answered", lambda: _is_serving(hardy))


def _is_serving(served: ServedGrpc) -> bool:
    try:
        return served.health() == 1
    except grpc.RpcError:
        return False


def test_a_message_that_comes_in_part_is_not_waited_for(hardy: ServedGrpc, healthy: ReservationServiceStub) -> None:
    announced = struct.pack(">BI", 0, 60_000) + b"x" * 30_000

    with connections(hardy, 100) as dripping:
        for connection in dripping:
            begin(hardy, connection, "/ReservationService/reserve")
            connection.sendall(frame(DATA, 0, 1, announced[:16_000]))
        for start in range(20):
            serves(healthy, start)


def test_huge_messages_are_refused_and_others_are_served(hardy: ServedGrpc, healthy: ReservationServiceStub) -> None:
    before = memory(hardy)
    with grpc.insecure_channel(hardy.address, [("grpc.max_send_message_length", -1)]) as channel:
        method: Any = channel.unary_unary("/ReservationService/reserve")
        refusals = [method.future(bytes(50_000_000)) for _ in range(8)]
        for start in range(20):
            serves(healthy, start)
        codes = {one.code() for one in refusals}
    grown = memory(hardy) - before

    print(f"{grown / 1e6:.0f} MB")
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert grown < MOST_GROWTH_BYTES


def test_streams_that_nobody_reads_end_and_others_are_served(
    hardy: ServedGrpc, healthy: ReservationServiceStub, db: Db
) -> None:
    many(db, 100_000)
    with connections(hardy, STREAMS // 2) as unread:
        for connection in unread:
            query(hardy, connection)
        for start in range(20):
            serves(healthy, start)
        # The others of the same client are served when these have lost their places, because they read nothing.
        wait_until("another one is served", lambda: _streams(healthy))
        for connection in unread:
            _read_to_end(connection)


def _streams(healthy: ReservationServiceStub) -> bool:
    try:
        return sum(1 for _ in healthy.Query(proto.QueryRequest(resource_id="room-1"))) == 20
    except grpc.RpcError:
        return False


def _read_to_end(connection: socket.socket) -> None:
    """Read until the server has ended the call, without ever allowing it to send more."""
    kind = DATA
    with connection.makefile("rb") as frames:
        while kind != RST_STREAM:
            length, kind = struct.unpack(">IB", b"\0" + frames.read(4))
            frames.read(5 + length)


def test_others_are_served_beside_streams_that_are_read_as_fast_as_possible(
    hardy: ServedGrpc, healthy: ReservationServiceStub, db: Db
) -> None:
    many(db, 200_000)
    stopped = threading.Event()

    def read() -> None:
        with hardy.calling() as stub:
            for _ in stub.Query(proto.QueryRequest(), metadata=[("x-client-id", "reader")]):
                if stopped.is_set():
                    return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for start in range(20):
        serves(healthy, start)
    stopped.set()
    for reader in readers:
        reader.join()


def test_calls_that_are_cancelled_at_once_leave_nothing_behind(
    hardy: ServedGrpc, healthy: ReservationServiceStub
) -> None:
    before = memory(hardy)

    with hardy.calling() as fickle:
        for number in range(3_000):
            fickle.reserve.future(reserving(number, number + 1, resource_id="cancelled")).cancel()
        for start in range(20):
            serves(healthy, start)

    assert memory(hardy) - before < MOST_GROWTH_BYTES


def test_a_client_that_takes_all_its_places_leaves_places_to_others(
    hardy: ServedGrpc, healthy: ReservationServiceStub, db: Db
) -> None:
    """Its calls wait for a room that is locked."""
    room = a_calendar(db, sku="greedy")
    greedy = [("x-client-id", "greedy")]
    with ExitStack() as stack:
        session = stack.enter_context(db.begin())
        lock(session, room)
        stubs = [stack.enter_context(hardy.calling()) for _ in range(4)]
        calls = [
            stubs[number % 4].reserve.future(reserving(resource_id="greedy"), metadata=greedy)
            for number in range(MOST_CALLS)
        ]
        for start in range(20):
            serves(healthy, start)
        codes = [call.code() for call in calls]

    assert set(codes) == {grpc.StatusCode.UNAVAILABLE}
    assert MOST_CALLS > MOST_CALLS_OF_CLIENT


def test_too_much_metadata_is_refused(hardy: ServedGrpc, healthy: ReservationServiceStub) -> None:
    refusal = refused(healthy.reserve, reserving(), metadata=[("x-more", "x" * 20_000)])

    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    serves(healthy, 0)


def test_a_server_stops_in_time_whatever_its_clients_do(settings: Settings, db: Db) -> None:
    many(db, 50_000)
    with serving_grpc() as served, connections(served, 3) as (unread, begun, watching):
        begin(served, begun, "/ReservationService/reserve", calls=50)
        begin(served, watching, "/grpc.health.v1.Health/Watch", calls=5)
        query(served, unread)
        began = time.monotonic()
        served.process.terminate()

        assert served.process.wait(30) == 0
        took = time.monotonic() - began

    print(f"it took {took:.1f} s")
    assert took < 10.0
    assert GRACE_SECONDS < 10.0


def test_a_server_answers_what_it_has_begun_before_it_stops(settings: Settings, db: Db) -> None:
    room = a_calendar(db, sku="room-1")
    with serving_grpc() as served, served.calling() as service:
        with db.begin() as session:
            lock(session, room)
            waiting = service.reserve.future(reserving())
            wait_until("it has begun", lambda: count(db, "wait_event_type = 'Lock'"))
            served.process.terminate()
        made = waiting.result(timeout=30).reservation

        assert made.id
        assert served.process.wait(30) == 0
