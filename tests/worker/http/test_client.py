"""What a server's response means for a row, over a real connection; no response takes too much time or memory."""

import gzip
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler

import pytest

from domain.outbox import Cause, Delivered, Outcome, Rejected, Unreachable
from tests.support.http_server import Server, saying, sending, trickling
from worker.http.client import Http

#: The time-out of each post.
TIMEOUT_SECONDS = 0.4

#: Far longer than the time-out, and far shorter than a thread that waits for ever.
AT_MOST_SECONDS = 3.0

Post = Callable[[], Outcome]


@pytest.fixture
def post(server: Server) -> Iterator[Post]:
    http = Http(server.url, timeout_seconds=TIMEOUT_SECONDS, connections=1)
    yield lambda: http.post("{}", {})
    http.close()


def posted(url: str) -> Outcome:
    http = Http(url, timeout_seconds=TIMEOUT_SECONDS, connections=1)
    outcome = http.post("{}", {})
    http.close()
    return outcome


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_means_delivered(server: Server, post: Post, status: int) -> None:
    server.answer = saying(status)

    assert post() == Delivered()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (300, Unreachable),
        (301, Unreachable),
        (302, Unreachable),
        (307, Unreachable),
        (400, Rejected),
        (401, Unreachable),
        (404, Unreachable),
        (408, Unreachable),
        (409, Rejected),
        (410, Rejected),
        (413, Rejected),
        (422, Rejected),
        (425, Unreachable),
        (429, Unreachable),
        (500, Unreachable),
        (502, Unreachable),
        (503, Unreachable),
        (599, Unreachable),
    ],
)
def test_each_other_status_means_rejected_or_unreachable(
    server: Server, post: Post, status: int, kind: type[Rejected | Unreachable]
) -> None:
    server.answer = saying(status, b"the reason", Location=server.url)

    outcome = post()

    assert isinstance(outcome, kind)
    assert outcome.error.startswith(str(status)) and outcome.error.endswith("the reason")
    assert len(server.requests) == 1, "redirects are not followed"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7),
        (" 120 ", 120),
        ("0", 0),
        ("999999999", 86_400),
        ("9" * 20, 86_400),
        pytest.param("9" * 5_000, 86_400, id="of 5,000 digits"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 86_400),
        ("Sat, 01 Jan 0001 00:00:00 +2359", 0),
    ],
)
def test_a_server_may_ask_for_a_wait_of_a_day_at_most(
    server: Server, post: Post, status: int, retry_after: str, seconds: int
) -> None:
    server.answer = saying(status, Retry_After=retry_after)

    outcome = post()

    assert isinstance(outcome, Unreachable)
    assert outcome.retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "retry_after",
    [
        "soon",
        "-5",
        "1.5",
        "1e30",
        "inf",
        "1_000",
        "",
        "Mon, 99 Foo 2030 00:00:00 GMT",
        "²",
        "Mon, 01 Jan",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -9999",
        "Mon, 01 Jan 2030 00:00:00 +99999999999999999999",
    ],
)
def test_a_retry_after_that_can_not_be_read_is_ignored(server: Server, post: Post, retry_after: str) -> None:
    server.answer = saying(503, Retry_After=retry_after)

    outcome = post()

    assert isinstance(outcome, Unreachable)
    assert outcome.retry_after is None


@pytest.mark.parametrize(
    ("away", "low", "high"),
    [
        (timedelta(minutes=10), timedelta(minutes=9), timedelta(minutes=10)),
        (timedelta(minutes=-10), timedelta(0), timedelta(0)),
        (timedelta(days=100_000), timedelta(days=1), timedelta(days=1)),
    ],
)
def test_a_server_may_ask_for_a_wait_by_a_date(
    server: Server, post: Post, away: timedelta, low: timedelta, high: timedelta
) -> None:
    date = datetime.now(UTC) + away
    server.answer = saying(503, Retry_After=format_datetime(date, usegmt=True))

    outcome = post()

    assert isinstance(outcome, Unreachable) and outcome.retry_after is not None
    assert low <= outcome.retry_after <= high


@pytest.mark.parametrize(
    ("statuses", "cause"),
    [
        ((429, 503), Cause.LOAD),
        ((502, 504, 521, 527, 530), Cause.OUTAGE),
        ((500, 501, 505, 507, 511, 408, 425), Cause.ERROR),
        ((301, 302, 304, 307, 401, 403, 404, 405, 407), Cause.DENIED),
    ],
)
def test_a_status_says_why_something_was_not_taken(
    server: Server, post: Post, statuses: Sequence[int], cause: Cause
) -> None:
    for status in statuses:
        server.answer = saying(status)

        outcome = post()

        assert isinstance(outcome, Unreachable) and outcome.cause is cause, status


def test_a_refused_connection_is_an_outage() -> None:
    outcome = posted("http://127.0.0.1:1/hook")

    assert isinstance(outcome, Unreachable) and "ConnectError" in outcome.error


def test_a_name_that_does_not_exist_is_an_outage() -> None:
    outcome = posted("http://nowhere.invalid/hook")

    assert isinstance(outcome, Unreachable)


HEAD = b"HTTP/1.1 200 OK\r\n"
LONG = b"Content-Length: 100000\r\n\r\n"


@pytest.mark.timed
@pytest.mark.parametrize(
    "answer",
    [
        trickling(b"", b"", every_seconds=0.05),
        trickling(HEAD, b"X-Drop: 1\r\n", every_seconds=0.05),
        trickling(b"", b"H", every_seconds=0.05),
    ],
    ids=["says nothing", "trickles headers", "trickles nonsense"],
)
def test_a_server_whose_headers_do_not_arrive_in_time_is_an_outage(
    server: Server, post: Post, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.answer = answer
    began = time.monotonic()

    outcome = post()

    assert isinstance(outcome, Unreachable)
    assert time.monotonic() - began < AT_MOST_SECONDS


@pytest.mark.timed
@pytest.mark.parametrize(("status", "kind"), [(200, Delivered), (422, Rejected), (500, Unreachable)])
@pytest.mark.parametrize("fault", ["trickles", "is huge", "stops", "is no gzip", "is a bomb"])
def test_the_status_counts_whatever_is_wrong_with_the_body(
    server: Server, post: Post, status: int, kind: type[Outcome], fault: str
) -> None:
    """The server has decided. Sending the row again because of a broken body would repeat the row for ever."""
    head = b"HTTP/1.1 %d Answer\r\n" % status
    zipped = b"Content-Encoding: gzip\r\n"
    server.answer = {
        "trickles": trickling(head + LONG, b"x", every_seconds=0.05),
        "is huge": trickling(head + b"Content-Length: 10000000000\r\n\r\n", b"x" * 1_000_000, every_seconds=0),
        "stops": sending(head + LONG + b"some"),
        "is no gzip": sending(head + zipped + b"Content-Length: 4\r\n\r\nnope"),
        "is a bomb": sending(head + zipped + b"Content-Length: %d\r\n\r\n" % len(BOMB) + BOMB),
    }[fault]
    began = time.monotonic()

    outcome = post()

    assert isinstance(outcome, kind)
    assert time.monotonic() - began < AT_MOST_SECONDS


@pytest.mark.parametrize("fault", ["is huge", "is a bomb"])
def test_a_huge_body_is_read_only_in_part(server: Server, post: Post, fault: str) -> None:
    head = b"HTTP/1.1 422 Answer\r\n"
    server.answer = {
        "is huge": trickling(head + b"Content-Length: 10000000000\r\n\r\n", b"x" * 100_000, every_seconds=0),
        "is a bomb": sending(head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB),
    }[fault]
    tracemalloc.start()

    outcome = post()

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(outcome, Rejected)
    assert most < 5_000_000


#: A hundred megabytes of zeros, compressed.
BOMB = gzip.compress(b"\0" * 100_000_000)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 twohundred OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: minus one\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\xff\xfe: \x00\r\n\r\n",
        b"\x00" * 1_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
    ],
)
def test_a_response_that_is_not_http_is_an_outage(server: Server, post: Post, raw: bytes) -> None:
    server.answer = sending(raw)

    assert isinstance(post(), Unreachable)


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", "Grund: ü".encode(), b"a\0b", b"x" * 100_000])
def test_an_error_quotes_a_short_part_of_the_body_that_can_be_stored(server: Server, post: Post, body: bytes) -> None:
    server.answer = saying(400, body)

    outcome = post()

    assert isinstance(outcome, Rejected)
    assert "\0" not in outcome.error
    assert len(outcome.error) < 400
    outcome.error.encode()


def test_after_nonsense_the_next_post_uses_a_new_connection(server: Server, post: Post) -> None:
    server.answer = sending(b"nonsense")
    assert isinstance(post(), Unreachable)

    server.answer = saying(204)

    assert post() == Delivered()


def test_several_posts_share_one_connection(server: Server, post: Post) -> None:
    for _ in range(5):
        post()

    assert len(server.connections) == 1


def test_proxies_of_the_environment_are_ignored(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    outcome = posted(server.url)

    assert outcome == Delivered()
