"""No answer takes the processor or the time of others: neither one that never ends, nor one in countless parts."""

import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from domain.outbox import Delivered, Outcome, Rejected, Unreachable
from tests.support.http_server import Server, saying, sending, trickling
from worker.http.client import Http

#: The time-out of each post. No post of these tests is expected to take it.
TIMEOUT_SECONDS = 20.0

#: Far longer than the posts of these tests take beside other work, and far shorter than the time-out.
AT_MOST_SECONDS = 8.0

PROGRESS = b"HTTP/1.1 102 Processing\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
REFUSAL = b"HTTP/1.1 422 Unprocessable Entity\r\n"
LONG = b"Content-Length: 100000\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK_OF_ONE_BYTE = b"1\r\nx\r\n"


@pytest.fixture
def http(server: Server) -> Iterator[Http]:
    http = Http(server.url, timeout_seconds=TIMEOUT_SECONDS, connections=1)
    yield http
    http.close()


def post(http: Http) -> Outcome:
    return http.post("{}", {})


def in_two_writes(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(OK + b"Content-Length: 2\r\n\r\n")
    handler.wfile.write(b"ok")


@pytest.mark.timed
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (trickling(b"", PROGRESS * 2_000, every_seconds=0), "within 32,768 bytes"),
        (trickling(OK, b"X-Drop: 1\r\n" * 2_000, every_seconds=0), "within 32,768 bytes"),
        (trickling(OK + b"X-Drop: ", b"x", every_seconds=0.0001), "more than 1,000 parts"),
    ],
    ids=["102 without end", "headers without end", "a header byte by byte"],
)
def test_a_head_that_never_ends_is_an_outage_long_before_the_time_out(
    server: Server, http: Http, answer: Callable[[BaseHTTPRequestHandler], None], message: str
) -> None:
    server.answer = answer
    began = time.monotonic()

    outcome = post(http)

    assert isinstance(outcome, Unreachable) and message in outcome.error
    assert time.monotonic() - began < AT_MOST_SECONDS


@pytest.mark.timed
def test_a_request_that_is_answered_102_without_end_is_not_repeated(server: Server, http: Http) -> None:
    post(http)
    server.answer = trickling(b"", PROGRESS * 2_000, every_seconds=0)

    assert isinstance(post(http), Unreachable)
    server.answer = saying(200)

    assert [post(http) for _ in range(10)] == [Delivered()] * 10, "time for a repeat to arrive"
    assert len(server.requests) == 12


def test_an_answer_after_a_few_informational_ones_counts(server: Server, http: Http) -> None:
    server.answer = sending(PROGRESS * 100 + OK + b"Content-Length: 0\r\n\r\n", hang_up=False)

    assert [post(http) for _ in range(3)] == [Delivered()] * 3
    assert len(server.connections) == 1


def test_only_the_beginning_of_a_body_in_chunks_of_one_byte_is_read(server: Server, http: Http) -> None:
    server.answer = sending(REFUSAL + CHUNKED + CHUNK_OF_ONE_BYTE * 5_000 + b"0\r\n\r\n", hang_up=False)

    outcome = post(http)

    assert isinstance(outcome, Rejected)
    assert outcome.error.endswith(": " + "x" * 100)


def test_a_connection_with_thousands_of_chunks_of_one_byte_is_closed(server: Server, http: Http) -> None:
    server.answer = sending(OK + CHUNKED + CHUNK_OF_ONE_BYTE * 5_000 + b"0\r\n\r\n", hang_up=False)

    assert [post(http), post(http)] == [Delivered()] * 2
    assert len(server.requests) == len(server.connections) == 2


@pytest.mark.timed
@pytest.mark.parametrize(
    "answer",
    [
        trickling(OK + LONG, b"x", every_seconds=0.5),
        trickling(OK + CHUNKED, b"", every_seconds=0.5),
        trickling(OK + b"\r\n", b"", every_seconds=0.5),
    ],
    ids=["drips", "chunks that never come", "ends with the connection"],
)
def test_a_2xx_is_delivered_at_once_even_if_its_body_never_ends(
    server: Server, http: Http, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.answer = answer
    began = time.monotonic()

    outcome = post(http)

    assert outcome == Delivered()
    assert time.monotonic() - began < AT_MOST_SECONDS


@pytest.mark.timed
def test_of_a_refusal_that_never_ends_the_beginning_is_quoted(server: Server, http: Http) -> None:
    server.answer = trickling(REFUSAL + LONG + b"sold out", b".", every_seconds=0.5)
    began = time.monotonic()

    outcome = post(http)

    assert isinstance(outcome, Rejected) and "sold out" in outcome.error
    assert time.monotonic() - began < AT_MOST_SECONDS


@pytest.mark.timed
def test_the_next_post_after_a_body_that_never_ends_gets_its_own_answer_soon(server: Server, http: Http) -> None:
    began = time.monotonic()
    server.answer = trickling(OK + LONG, b"x", every_seconds=0.5)
    assert post(http) == Delivered()
    server.answer = saying(422)

    outcome = post(http)

    assert isinstance(outcome, Rejected)
    assert len(server.connections) == 2
    assert time.monotonic() - began < AT_MOST_SECONDS


@pytest.mark.timed
def test_a_body_that_follows_its_head_keeps_the_connection_usable(server: Server, http: Http) -> None:
    server.answer = in_two_writes

    assert [post(http) for _ in range(5)] == [Delivered()] * 5
    assert len(server.connections) == 1
