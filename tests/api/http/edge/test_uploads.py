"""Admission, over real sockets: what a client does to a connection harms nobody, and every refusal reaches it."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from api.http.edge.admission import DISCARDED_BYTES, Admission
from api.http.edge.exchanges import Exchanges
from api.http.limits import BODY_SECONDS, MAX_BODY_BYTES, MOST_PIECES
from tests.support.api_process import Served
from tests.support.builders import Db, an_item
from tests.support.refusals import everything
from tests.support.waiting import wait_until

HEAD = b"POST /reservations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@contextmanager
def connected(api: httpx.Client) -> Iterator[socket.socket]:
    address = api.base_url.host, api.base_url.port or 80
    with socket.create_connection(address, timeout=30) as connection:
        yield connection


def reset(connection: socket.socket) -> None:
    """Close a connection as a client does that crashes: without the usual farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def received(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Read all that comes. Return the status, the headers and the problem."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, json.loads(body)


@pytest.mark.parametrize("farewell", ["close", "reset"])
@pytest.mark.parametrize(
    "sent",
    [
        b"POST /reser",
        HEAD,
        HEAD + b"Content-Length: 1000\r\n\r\n",
        HEAD + b'Content-Length: 1000\r\n\r\n{"item_id":1,',
        HEAD + b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"item_id":1,',
        HEAD + b'Transfer-Encoding: chunked\r\n\r\nd\r\n{"item_id":1,\r\n',
        HEAD + b"Content-Length: 100000000\r\n\r\n" + b"x" * 100_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        HEAD + b'Content-Length: 26\r\n\r\n{"item_id":1,"quantity":1}',
        b"POST /items HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ],
)
def test_an_upload_that_is_aborted_is_no_fault_of_the_api(
    api: httpx.Client, db: Db, served: Served, sent: bytes, farewell: str
) -> None:
    """The fixture `api` requires that no error and no traceback is logged."""
    item = an_item(db, quantity=1_000)

    with connected(api) as connection:
        connection.sendall(sent)
        if farewell == "reset":
            reset(connection)

    assert api.get(f"/items/by-id/{item.id}").status_code == 200
    wait_until("no request is left", lambda: in_flight(served) == 0)
    assert served.faults() == []


def in_flight(served: Served) -> int:
    """Return how many connections of clients the server still has open, beside that of the client of the tests."""
    from psutil import Process

    root = Process(served.process.pid)
    port = served.client.base_url.port
    open_ = [one for child in (root, *root.children(recursive=True)) for one in child.net_connections("tcp")]
    return max(0, len({one.raddr for one in open_ if one.laddr.port == port and one.status == "ESTABLISHED"}) - 1)


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 1_000_000, DISCARDED_BYTES])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_too_much_gets_the_answer_that_it_is_too_much(
    api: httpx.Client, db: Db, size: int, chunked: bool
) -> None:
    """It reads only after it has sent everything, as simple clients do."""
    before = everything(db)
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size

    with connected(api) as connection:
        connection.sendall(HEAD + length + b"\r\n\r\n")
        for at in range(0, size, 65_536):
            piece = b"x" * min(65_536, size - at)
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        status, headers, problem = received(connection)

    assert (status, problem["type"], problem["field"]) == (413, "/problems/body-too-large", "body")
    assert headers["x-request-id"] == problem["request_id"]
    assert headers["connection"] == "close"
    assert everything(db) == before


def test_a_client_that_announces_too_much_and_waits_gets_the_answer(api: httpx.Client) -> None:
    with connected(api) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(b"x" * 1_000_000)

        assert received(connection)[0] == 413


@pytest.mark.slow
@pytest.mark.parametrize("sent", [HEAD + b"Content-Length: 26\r\n\r\n{", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_client_that_sends_too_slowly_gets_the_answer(api: httpx.Client, sent: bytes) -> None:
    with connected(api) as connection:
        connection.sendall(sent)
        status, headers, problem = received(connection)

    assert (status, problem["type"]) == (408, "/problems/body-too-slow")
    assert f"{BODY_SECONDS:g} s" in problem["detail"]
    assert headers["x-request-id"] == problem["request_id"]


def test_a_body_in_very_many_pieces_is_refused(api: httpx.Client) -> None:
    with connected(api) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"1\r\n \r\n" * (MOST_PIECES + 1_000) + b"0\r\n\r\n")

        assert received(connection)[0] in (400, 413), "400 if the system has joined the pieces"


def asked(admission: Admission, path: str = "/items", body: bytes = b"") -> list[Any]:
    """Call an application for one request. Return what it has sent."""
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": "POST" if body else "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-length", str(len(body)).encode())] if body else [],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Exchanges(admission)(scope, receive, send))
    return sent


async def _answers(_: object, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_beyond_the_limit_of_requests_all_but_the_probes_are_answered_busy() -> None:
    full = Admission(_answers, most_requests=0)

    start, content = asked(full)
    problem, headers = json.loads(content["body"]), dict(start["headers"])

    assert (start["status"], problem["type"]) == (503, "/problems/busy")
    assert int(headers[b"retry-after"]) == problem["retry_after"] in (1, 2, 3)
    assert headers[b"x-request-id"].decode() == problem["request_id"]
    for probe in ("/health/live", "/health/ready", "/metrics"):
        assert asked(full, probe)[0]["status"] == 200


def test_a_body_that_is_too_large_and_complete_is_refused_without_waiting_for_more() -> None:
    start, _ = asked(Admission(_answers, most_requests=1), body=b"x" * (MAX_BODY_BYTES + 1))

    assert start["status"] == 413
