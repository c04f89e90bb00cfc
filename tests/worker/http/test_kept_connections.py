"""A connection that was kept open gives each request its own response, and its end is no outage of the server."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from threading import Barrier, Event

import pytest

from domain.outbox import Delivered, Outcome, Rejected, Unreachable
from tests.support.http_server import Server, saying, sending, trickling
from worker.http.client import Http

#: Far longer than any exchange of these tests, except for the ones that wait for it to pass.
TIMEOUT_SECONDS = 1.0


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
CONFLICT = b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n"

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def http(server: Server) -> Iterator[Http]:
    http = Http(server.url, timeout_seconds=TIMEOUT_SECONDS, connections=2)
    yield http
    http.close()


def post(http: Http) -> Outcome:
    return http.post("{}", {"Idempotency-Key": "7"})


@pytest.mark.parametrize("stale", [OK, CONFLICT, CONFLICT[:30]], ids=["200", "409", "half of a 409"])
@pytest.mark.parametrize(("status", "kind"), [(200, Delivered), (409, Rejected), (503, Unreachable)])
def test_a_second_response_to_one_request_does_not_answer_the_next(
    server: Server, http: Http, stale: bytes, status: int, kind: type[Outcome]
) -> None:
    server.answer = sending(OK + stale, hang_up=False)
    assert post(http) == Delivered()

    server.answer = saying(status)
    outcome = post(http)

    assert isinstance(outcome, kind)
    assert len(server.requests) == 2


def test_a_request_that_the_server_never_read_is_not_delivered(server: Server, http: Http) -> None:
    server.answer = sending(OK + OK, hang_up=False)
    post(http)

    server.answer = sending(b"")

    assert isinstance(post(http), Unreachable)


def test_a_second_response_that_arrives_later_does_not_answer_the_next_request(server: Server, http: Http) -> None:
    returned, written = Event(), Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(OK)
        returned.wait(TIMEOUT_SECONDS)
        handler.wfile.write(CONFLICT)
        written.set()

    server.answer = answer
    assert post(http) == Delivered()
    returned.set()
    assert written.wait(TIMEOUT_SECONDS)

    server.answer = saying(200)

    assert post(http) == Delivered()
    assert len(server.connections) == 2


@pytest.mark.parametrize(
    "response",
    [
        b'HTTP/1.1 204 No Content\r\nContent-Length: 11\r\n\r\n{"ok":true}',
        b'HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\n\r\n{"ok":true}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\n",
    ],
    ids=["204 with a body and its length", "204 with a body", "body longer than its length", "line after the chunks"],
)
def test_a_server_that_sends_a_few_bytes_too_many_is_up(server: Server, http: Http, response: bytes) -> None:
    server.answer = sending(response, hang_up=False)

    outcomes = [post(http) for _ in range(4)]

    assert outcomes == [Delivered()] * 4
    assert len(server.requests) == 4, "each was sent once"


def once_per_connection(then: Answer) -> Answer:
    """Say 200 to the first request of each connection, and answer the others otherwise."""
    answered = set()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.client_address in answered:
            then(handler)
        else:
            answered.add(handler.client_address)
            saying(200)(handler)

    return answer


@pytest.mark.parametrize(
    "end",
    [b"", b"HTTP/1.1 20", b'{"ok":true}\r\n\r\n'],
    ids=["closed", "closed in the head", "rest of the response before"],
)
def test_a_request_is_sent_once_more_if_a_kept_connection_breaks(server: Server, http: Http, end: bytes) -> None:
    server.answer = once_per_connection(sending(end))

    outcomes = [post(http) for _ in range(3)]

    assert outcomes == [Delivered()] * 3
    assert [request.headers["idempotency-key"] for request in server.requests] == ["7"] * 4


def test_a_request_is_sent_once_more_on_a_new_connection_even_if_others_were_kept(server: Server, http: Http) -> None:
    together = Barrier(2)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        together.wait(TIMEOUT_SECONDS)
        saying(200)(handler)

    server.answer = answer
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(post, [http, http]))
    kept = set(server.connections)

    server.answer = lambda handler: (sending(b"") if handler.client_address in kept else saying(200))(handler)

    assert len(kept) == 2
    assert post(http) == Delivered()
    assert len(server.requests) == 4


def test_a_new_connection_that_breaks_is_an_outage(server: Server, http: Http) -> None:
    server.answer = sending(b"")

    assert isinstance(post(http), Unreachable)
    assert len(server.requests) == 1


def test_a_request_that_breaks_on_a_new_connection_too_is_an_outage(server: Server, http: Http) -> None:
    post(http)
    server.answer = sending(b"")

    assert isinstance(post(http), Unreachable)
    assert len(server.requests) == 3


def test_a_request_that_gets_no_response_in_time_is_sent_once(server: Server, http: Http) -> None:
    server.answer = once_per_connection(trickling(b"", b"", every_seconds=0.05))
    post(http)

    assert isinstance(post(http), Unreachable)
    assert len(server.requests) == 2


@pytest.mark.timed
def test_both_attempts_together_take_no_longer_than_the_time_out(server: Server, http: Http) -> None:
    post(http)
    kept = set(server.connections)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(TIMEOUT_SECONDS * 0.7)
        (sending(b"") if handler.client_address in kept else trickling(b"", b"", every_seconds=0.05))(handler)

    server.answer = answer
    began = time.monotonic()

    outcome = post(http)

    assert isinstance(outcome, Unreachable) and "Timeout" in outcome.error
    assert time.monotonic() - began < TIMEOUT_SECONDS * 1.5
    assert len(server.requests) == 3
