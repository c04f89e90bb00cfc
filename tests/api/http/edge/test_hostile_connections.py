"""Connections that send nothing, or too slowly, or too much: everybody else is served, and the memory has a limit."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest
from sqlalchemy import text

from api.connections import FIRST_REQUEST_SECONDS
from api.http.edge.large_bodies import CUT_OFF, MOST_UNSENT_BYTES
from api.http.limits import BODY_SECONDS
from api.process import STOP_SECONDS
from domain.runtime.settings import Settings
from tests.support.api_process import Served, serving
from tests.support.builders import FRIDAY, Db, a_calendar, an_item
from tests.support.callers import Callers, getting, request, reserving
from tests.support.crowds import BODY, CHUNKS, HEAD, NOTHING, Crowd, send_slowly
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timed]

#: What the API may need for 2,000 clients that send 60 kB each: 20 kB for each, and 32 MB for all of them, twice.
MOST_GROWTH_BYTES = 150_000_000

#: The files that a process may have, so that it has 1,000 connections.
MOST_FILES = 1_200

#: An answer comes within this time of its deadline, on a machine however busy.
SLACK_SECONDS = 5.0

#: What a client has sent when the API stops, or is refused, and what it sends again and again after that.
UNFINISHED = {
    "idle": (NOTHING, b""),
    "body": (BODY, b""),
    "dripping body": (BODY, b"x"),
    "dripping chunks": (CHUNKS, b"1\r\nx\r\n"),
    "too large": (HEAD + b"Content-Length: 9000000\r\n\r\n", b"x"),
    "too many chunks": (CHUNKS + b"1\r\nx\r\n" * 3_000, b"1\r\nx\r\n"),
}


@pytest.fixture(scope="module")
def hardy(settings: Settings) -> Iterator[Served]:
    """An API of its own, as its memory and its log are looked at."""
    with serving() as served:
        yield served


def memory(served: Served) -> int:
    """Return the bytes that the processes of an API have in memory."""
    main = psutil.Process(served.process.pid)
    return sum(process.memory_info().rss for process in [main, *main.children(recursive=True)])


def connect(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=60)


@pytest.mark.parametrize(
    ("beginning", "more", "answered"),
    [(NOTHING, b"", set()), (HEAD, b"", set()), (BODY, b"x", {"408"}), (CHUNKS, b"1\r\nx\r\n", {"408"})],
    ids=["idle", "heads", "bodies", "chunks"],
)
def test_others_are_served_beside_2000_connections_that_never_finish(
    hardy: Served, db: Db, beginning: bytes, more: bytes, answered: set[str]
) -> None:
    items = [an_item(db, quantity=100_000) for _ in range(4)]
    with (
        Callers(hardy.port, [getting("/health/live")], rest_seconds=0.05) as probing,
        Callers(hardy.port, [reserving(item.id) for item in items], rest_seconds=0.01) as reserving_others,
    ):
        with Crowd(hardy.port, 2_000, beginning, more) as crowd:
            if answered:
                wait_until("a slow one is refused", lambda: crowd.answered)
            reserving_others.wait_for(200, 201)
            probing.wait_for(10, 200)

    assert {answer.status for answer in probing.answers} == {200}
    assert {answer.status for answer in reserving_others.answers} == {201}
    assert set(crowd.answered) == answered
    assert hardy.faults() == []


def seconds_until_closed(connection: socket.socket) -> float:
    began = time.monotonic()
    while connection.recv(1_000):
        pass
    return time.monotonic() - began


def test_a_connection_must_send_its_first_request_soon_and_may_rest_after_it(hardy: Served) -> None:
    beginnings = [NOTHING, HEAD, HEAD[:20], request("GET", "/health/live")]
    with ExitStack() as stack, ThreadPoolExecutor(len(beginnings)) as threads:
        opened = [stack.enter_context(connect(hardy)) for _ in beginnings]
        for connection, beginning in zip(opened, beginnings, strict=True):
            connection.sendall(beginning)
        *unused, used = threads.map(seconds_until_closed, opened)

    print([f"{seconds:.1f} s" for seconds in (*unused, used)])
    assert max(unused) < FIRST_REQUEST_SECONDS + SLACK_SECONDS < used
    assert hardy.faults() == []


def test_one_address_leaves_connections_to_others(settings: Settings) -> None:
    """It opens more than there may be, again and again."""
    with (
        serving(files=str(MOST_FILES), QUEUE_LIMIT="500") as served,
        Crowd(served.port, MOST_FILES, address="127.0.0.2") as crowd,
    ):
        wait_until("some of it are ended", lambda: crowd.answered["closed"] > MOST_FILES)
        took = [probe(served) for _ in range(20)]

    print(f"{max(took):.2f} s, {dict(crowd.answered)}")
    assert max(took) < SLACK_SECONDS
    assert served.faults() == []


def probe(served: Served) -> float:
    """Return how long it takes to be answered on a connection of one's own, in seconds."""
    began = time.monotonic()
    assert httpx.get(f"{served.url}/health/live", timeout=SLACK_SECONDS, trust_env=False).status_code == 200
    return time.monotonic() - began


def test_large_bodies_that_never_end_take_a_limited_part_of_the_memory(hardy: Served, db: Db) -> None:
    item = an_item(db, quantity=100_000)
    unfinished = HEAD + b"Content-Length: 60001\r\n\r\n" + b" " * 60_000

    with Callers(hardy.port, [reserving(item.id)], rest_seconds=0.05) as others:
        with Crowd(hardy.port, 2_000, BODY) as crowd:  # what as many connections need is not counted
            wait_until("all were read", lambda: crowd.answered["408"] >= 2_000)
        before = memory(hardy)
        with Crowd(hardy.port, 2_000, unfinished) as crowd:
            wait_until("some are refused", lambda: crowd.answered["503"])
            others.wait_for(20, 201)
            grown = memory(hardy) - before
    print(f"{grown / 1e6:.0f} MB")

    assert {answer.status for answer in others.answers} == {201}
    assert grown < MOST_GROWTH_BYTES
    assert hardy.faults() == []


def test_a_body_that_is_too_large_is_always_answered(hardy: Served, db: Db) -> None:
    """Each on a connection that was used before, and without waiting for the answer."""
    too_large = HEAD + b"Content-Length: 2000000\r\n\r\n" + b"x" * 2_000_000

    def send(_: int) -> bytes:
        with connect(hardy) as connection:
            connection.sendall(request("GET", "/health/live"))
            connection.recv(1_000)
            connection.sendall(too_large)
            return connection.recv(1_000)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(send, range(20)))

    assert {answer[9:12] for answer in answers} == {b"413"}
    assert hardy.faults() == []


def test_a_body_in_very_many_pieces_is_refused_while_others_are_served(hardy: Served, db: Db) -> None:
    item = an_item(db, quantity=100_000)
    answer = b""

    with (
        Callers(hardy.port, [getting("/health/live")], rest_seconds=0.01) as probing,
        Callers(hardy.port, [reserving(item.id)], rest_seconds=0.01) as others,
        connect(hardy) as connection,
    ):
        others.wait_for(5, 201)
        connection.sendall(CHUNKS)
        # The answer may come, and the connection be closed, before everything was sent.
        with suppress(OSError):
            for _ in range(100):
                connection.sendall(b"1\r\n \r\n" * 1_000)
            connection.sendall(b"0\r\n\r\n")
        answer = connection.recv(1_000)
        others.wait_for(5, 201)

    assert answer[9:12] == b"413"
    assert {found.status for found in probing.answers} == {200}
    assert {found.status for found in others.answers} == {201}
    assert hardy.faults() == []


def test_the_connection_of_a_body_that_is_refused_is_closed(hardy: Served, db: Db) -> None:
    """Even while the client continues to send, and long before Python would collect any garbage."""

    def send(beginning: bytes, more: bytes) -> float:
        with connect(hardy) as connection:
            connection.sendall(beginning)
            began = time.monotonic()
            send_slowly(connection, more, 2 * SLACK_SECONDS)
            return time.monotonic() - began

    unfinished = [UNFINISHED[name] for name in ("dripping body", "dripping chunks", "too large", "too many chunks")]
    with ThreadPoolExecutor(40) as threads:
        took = list(threads.map(send, *zip(*unfinished * 10, strict=True)))

    assert max(took) < BODY_SECONDS + SLACK_SECONDS
    assert hardy.faults() == []


def test_uploads_that_are_aborted_leave_nothing_behind(hardy: Served, db: Db) -> None:
    item = an_item(db, quantity=100)

    for beginning in (HEAD, BODY, CHUNKS, HEAD + b"Content-Length: 2000000\r\n\r\n" + b"x" * 100_000):
        for _ in range(50):
            with connect(hardy) as connection:
                connection.sendall(beginning)

    with Callers(hardy.port, [reserving(item.id)]) as others:
        others.wait_for(20, 201)
    assert hardy.faults() == []


def test_an_api_with_unfinished_uploads_stops_by_itself(settings: Settings) -> None:
    with serving() as served, ThreadPoolExecutor(len(UNFINISHED)) as threads:
        connections = [(connect(served), beginning, more) for beginning, more in UNFINISHED.values()]
        for connection, beginning, _ in connections:
            # A connection that has been used is one that a stop has to end.
            connection.sendall(request("GET", "/health/live"))
            connection.recv(1_000)
            connection.sendall(beginning)
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        for connection, _, more in connections:
            threads.submit(send_slowly, connection, more, 2 * STOP_SECONDS)
        try:
            code = served.process.wait(2 * STOP_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        took = time.monotonic() - began
        log = served.log.read_text()
        for connection, *_ in connections:
            connection.close()

    assert code == 0
    # By then it would have been killed.
    assert took < STOP_SECONDS
    assert "Traceback" not in log


#: So many taken times make an answer of some 3 MB.
TAKEN = """
    INSERT INTO calendar_occupancies
        (reservation_id, position, item_id, units, blocked_from, blocked_until, is_exclusive)
    SELECT gen_random_uuid(), 1, :item_id, 1, start, start + interval '4 minutes', true
    FROM generate_series(CAST(:start AS timestamptz), :start + interval '60 days', interval '5 minutes') AS start
"""

#: With these, the systems at both ends keep as little of an answer as on a real network.
SEGMENT_BYTES, RECEIVED_BYTES = 536, 4_096

#: What the API may need for the answers that it sends, and for those that are made meanwhile.
MOST_UNREAD_BYTES = MOST_UNSENT_BYTES + 90_000_000


def test_large_answers_that_nobody_reads_take_a_limited_part_of_the_memory(hardy: Served, db: Db) -> None:
    room, item = a_calendar(db), an_item(db, quantity=100_000)
    with db.begin() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(text(TAKEN), {"item_id": room.id, "start": FRIDAY})
    path = f"/items/by-id/{room.id}/availability?from=2030-05-03T00:00:00Z&to=2030-07-01T00:00:00Z"
    size = len(hardy.client.get(path).content)
    before, cut_off = memory(hardy), cut_offs(hardy)

    with ExitStack() as stack, Callers(hardy.port, [reserving(item.id)], rest_seconds=0.05) as others:
        for number in range(50):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
            connection.connect(("127.0.0.1", hardy.port))
            connection.sendall(request("GET", path, X_Client_Id=f"client-{number}"))
            others.wait_for(1, 201)
        wait_until("some are cut off", lambda: cut_offs(hardy) > cut_off)
        grown = memory(hardy) - before
        # On a slow machine, the requests of the others are still being answered: it is asked to come again.
        wait_until("another gets its answer", lambda: hardy.client.get(path).num_bytes_downloaded == size)
    print(f"{grown / 1e6:.0f} MB, {50 * size / 1e6:.0f} MB unread")

    assert {answer.status for answer in others.answers} == {201}
    assert grown < MOST_UNREAD_BYTES < 50 * size
    assert hardy.faults() == []


def cut_offs(served: Served) -> float:
    lines = served.client.get("/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{CUT_OFF._name}_total "))
