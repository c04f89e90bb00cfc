"""What the answers of an outside server mean, over a real connection: bounded in time and size, whatever it sends."""

import gzip
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler

import pytest

from domain.outbox import Delivered, Failed, Outcome, Rejected, Unreachable
from tests.support.servers import Server, a_server, saying, sending, trickling
from worker.http.client import Http

#: What the posts of these tests may take. A test that waits for it shows that it is kept to.
TIMEOUT_SECONDS = 0.4

#: Far longer than the time-out, and short enough to notice.
AT_MOST_SECONDS = 3.0

Post = Callable[[], Outcome]


@pytest.fixture
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


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
def test_2xx_is_success(server: Server, post: Post, status: int) -> None:
    server.answer = saying(status)

    assert post() == Delivered()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (300, Failed),
        (301, Failed),
        (302, Failed),
        (307, Failed),
        (400, Rejected),
        (401, Rejected),
        (404, Rejected),
        (408, Failed),
        (409, Rejected),
        (410, Rejected),
        (413, Rejected),
        (422, Rejected),
        (425, Failed),
        (429, Unreachable),
        (500, Unreachable),
        (502, Unreachable),
        (503, Unreachable),
        (599, Unreachable),
    ],
)
def test_other_answers_are_told_apart(
    server: Server, post: Post, status: int, kind: type[Rejected | Failed | Unreachable]
) -> None:
    server.answer = saying(status, b"the reason", Location=server.url)

    outcome = post()

    assert isinstance(outcome, kind)
    assert outcome.error.startswith(str(status)) and outcome.error.endswith("the reason")
    assert len(server.heard) == 1, "redirects are not followed"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("written", "seconds"),
    [("7", 7), (" 120 ", 120), ("0", 0), ("999999999", 86_400)],
)
def test_a_server_may_say_when_to_come_back(
    server: Server, post: Post, status: int, written: str, seconds: int
) -> None:
    server.answer = saying(status, Retry_After=written)

    outcome = post()

    assert isinstance(outcome, Unreachable)
    assert outcome.retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "written", ["soon", "-5", "1.5", "", "Mon, 99 Foo 2030 00:00:00 GMT", "²", "Mon, 01 Jan", "9" * 5_000]
)
def test_a_time_that_is_none_is_ignored(server: Server, post: Post, written: str) -> None:
    server.answer = saying(503, Retry_After=written)

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
def test_a_server_may_say_when_to_come_back_as_a_date(
    server: Server, post: Post, away: timedelta, low: timedelta, high: timedelta
) -> None:
    date = datetime.now(UTC) + away
    server.answer = saying(503, Retry_After=format_datetime(date, usegmt=True))

    outcome = post()

    assert isinstance(outcome, Unreachable) and outcome.retry_after is not None
    assert low <= outcome.retry_after <= high


@pytest.mark.parametrize(("status", "throttled"), [(429, True), (500, False), (503, False)])
def test_a_server_that_is_asked_too_much_is_told_from_one_that_is_broken(
    server: Server, post: Post, status: int, throttled: bool
) -> None:
    server.answer = saying(status)

    outcome = post()

    assert isinstance(outcome, Unreachable) and outcome.throttled is throttled


def test_nobody_at_the_door_is_an_outage() -> None:
    outcome = posted("http://127.0.0.1:1/hook")

    assert isinstance(outcome, Unreachable) and "ConnectError" in outcome.error


def test_a_name_that_nobody_has_is_an_outage() -> None:
    outcome = posted("http://nobody.invalid/hook")

    assert isinstance(outcome, Unreachable)


HEAD = b"HTTP/1.1 200 OK\r\n"
LONG = b"Content-Length: 100000\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        trickling(b"", b"", every_seconds=0.05),
        trickling(HEAD, b"X-Drop: 1\r\n", every_seconds=0.05),
        trickling(b"", b"H", every_seconds=0.05),
    ],
    ids=["says nothing", "trickles headers", "trickles nonsense"],
)
def test_a_server_that_does_not_get_to_the_point_is_an_outage_and_hung_up_on(
    server: Server, post: Post, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.answer = answer
    began = time.monotonic()

    outcome = post()

    assert isinstance(outcome, Unreachable)
    assert time.monotonic() - began < AT_MOST_SECONDS


@pytest.mark.parametrize(("status", "kind"), [(200, Delivered), (422, Rejected), (500, Unreachable)])
@pytest.mark.parametrize("trouble", ["trickles", "is huge", "stops", "is no gzip", "is a bomb"])
def test_the_status_counts_whatever_the_body_is(
    server: Server, post: Post, status: int, kind: type[Outcome], trouble: str
) -> None:
    """The server has answered. To ask again because of its body would tell it the same thing for ever."""
    head = b"HTTP/1.1 %d Answer\r\n" % status
    zipped = b"Content-Encoding: gzip\r\n"
    server.answer = {
        "trickles": trickling(head + LONG, b"x", every_seconds=0.05),
        "is huge": trickling(head + b"Content-Length: 10000000000\r\n\r\n", b"x" * 1_000_000, every_seconds=0),
        "stops": sending(head + LONG + b"some"),
        "is no gzip": sending(head + zipped + b"Content-Length: 4\r\n\r\nnope"),
        "is a bomb": sending(head + zipped + b"Content-Length: %d\r\n\r\n" % len(BOMB) + BOMB),
    }[trouble]
    began = time.monotonic()

    outcome = post()

    assert isinstance(outcome, kind)
    assert time.monotonic() - began < AT_MOST_SECONDS


@pytest.mark.parametrize("trouble", ["is huge", "is a bomb"])
def test_an_answer_is_read_no_further_than_is_of_use(server: Server, post: Post, trouble: str) -> None:
    head = b"HTTP/1.1 422 Answer\r\n"
    server.answer = {
        "is huge": trickling(head + b"Content-Length: 10000000000\r\n\r\n", b"x" * 100_000, every_seconds=0),
        "is a bomb": sending(head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB),
    }[trouble]
    tracemalloc.start()

    outcome = post()

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(outcome, Rejected)
    assert most < 5_000_000


#: A hundred megabytes of nothing.
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
def test_an_answer_that_is_none_is_an_outage(server: Server, post: Post, raw: bytes) -> None:
    server.answer = sending(raw)

    assert isinstance(post(), Unreachable)


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", "Grund: ü".encode(), b"a\0b", b"x" * 100_000])
def test_what_is_kept_of_an_answer_is_short_and_can_be_stored(server: Server, post: Post, body: bytes) -> None:
    server.answer = saying(400, body)

    outcome = post()

    assert isinstance(outcome, Rejected)
    assert "\0" not in outcome.error
    assert len(outcome.error) < 400
    outcome.error.encode()


def test_a_server_that_recovers_is_found_up_again_on_a_fresh_connection(server: Server, post: Post) -> None:
    server.answer = sending(b"nonsense")
    assert isinstance(post(), Unreachable)

    server.answer = saying(204)

    assert post() == Delivered()


def test_a_connection_is_used_again(server: Server, post: Post) -> None:
    for _ in range(5):
        post()

    assert len(server.connections) == 1


def test_proxies_of_the_environment_are_left_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    outcome = posted(server.url)

    assert outcome == Delivered()
