"""Webhooks, posted to a real server: signed, bounded in time and size, and their answers understood."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from standardwebhooks import Webhook as Signature
from standardwebhooks import WebhookVerificationError

from domain.outbox import Delivered, Failed, Held, Outcome, Rejected, Row, Unreachable
from domain.outbox.routes import Route
from tests.servers import Server, a_server, saying, sending, trickling
from worker.destinations.webhook import Webhook

SECRET = "whsec_aG9sZGZhc3QgdGVzdHMsIGtub3duIHRvIGV2ZXJ5b25l"

#: What the posts of these tests may take. A test that waits for it shows that it is kept to.
TIMEOUT_SECONDS = 0.4

#: Far longer than the time-out, and short enough to notice.
AT_MOST_SECONDS = 3.0


@pytest.fixture
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
def post(server: Server) -> Iterator[Callable[..., Outcome]]:
    """Post one row to the server."""
    webhook = a_webhook(server.url, secret=SECRET)
    yield lambda row=None: webhook.deliver([row or a_row()])[0]
    webhook.close()


def a_webhook(url: str, **fields: Any) -> Webhook:
    return Webhook(Route(name="partner", url=url, **fields), Event(), timeout_seconds=TIMEOUT_SECONDS)


def a_row(row_id: int = 1, *, event_type: str = "booking.created", payload: str = '{"note": "Zoë\\n"}') -> Row:
    moment = datetime(2030, 1, 1, 12, tzinfo=UTC)
    return Row(row_id, uuid4(), uuid4(), event_type, payload, "{}", 0, moment, None, None)


def test_a_webhook_is_signed_so_that_the_library_of_the_standard_verifies_it(
    server: Server, post: Callable[..., Outcome]
) -> None:
    row = a_row()

    assert post(row) == Delivered()

    (heard,) = server.heard
    event = Signature(SECRET).verify(heard.body, dict(heard.headers))
    assert event["event_id"] == str(row.event_id) == heard.headers["webhook-id"]
    assert (event["event_type"], event["payload"]) == ("booking.created", {"note": "Zoë\n"})
    assert heard.path == "/hook"
    assert heard.headers["content-type"] == "application/json"


def test_a_signature_covers_every_byte(server: Server, post: Callable[..., Outcome]) -> None:
    post()

    (heard,) = server.heard
    for forged in (heard.body + b" ", heard.body.replace(b"created", b"cancelled")):
        with pytest.raises(WebhookVerificationError):
            Signature(SECRET).verify(forged, dict(heard.headers))


def test_every_attempt_has_the_same_id_and_a_fresh_time(server: Server, post: Callable[..., Outcome]) -> None:
    row = a_row()

    post(row)
    post(row)

    assert len({heard.headers["webhook-id"] for heard in server.heard}) == 1
    assert all(abs(int(heard.headers["webhook-timestamp"]) - time.time()) < 60 for heard in server.heard)


def test_without_a_secret_nothing_is_signed(server: Server) -> None:
    webhook = a_webhook(server.url)
    webhook.deliver([a_row()])
    webhook.close()

    assert "webhook-signature" not in server.heard[0].headers
    assert "webhook-id" in server.heard[0].headers


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_success(server: Server, post: Callable[..., Outcome], status: int) -> None:
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
    server: Server, post: Callable[..., Outcome], status: int, kind: type[Rejected | Failed | Unreachable]
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
    server: Server, post: Callable[..., Outcome], status: int, written: str, seconds: int
) -> None:
    server.answer = saying(status, Retry_After=written)

    outcome = post()

    assert isinstance(outcome, Unreachable)
    assert outcome.retry_after == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "written", ["soon", "-5", "1.5", "", "Mon, 99 Foo 2030 00:00:00 GMT", "²", "Mon, 01 Jan", "9" * 5_000]
)
def test_a_time_that_is_none_is_ignored(server: Server, post: Callable[..., Outcome], written: str) -> None:
    server.answer = saying(503, Retry_After=written)

    outcome = post()

    assert isinstance(outcome, Unreachable)
    assert outcome.retry_after is None


@pytest.mark.parametrize(
    ("date", "low", "high"),
    [
        (datetime.now(UTC) + timedelta(minutes=10), timedelta(minutes=9), timedelta(minutes=10)),
        (datetime.now(UTC) - timedelta(minutes=10), timedelta(0), timedelta(0)),
        (datetime(9999, 12, 31, tzinfo=UTC), timedelta(days=1), timedelta(days=1)),
    ],
)
def test_a_server_may_say_when_to_come_back_as_a_date(
    server: Server, post: Callable[..., Outcome], date: datetime, low: timedelta, high: timedelta
) -> None:
    server.answer = saying(503, Retry_After=format_datetime(date, usegmt=True))

    outcome = post()

    assert isinstance(outcome, Unreachable) and outcome.retry_after is not None
    assert low <= outcome.retry_after <= high


def test_nobody_at_the_door_is_an_outage() -> None:
    with a_server() as gone:
        pass
    webhook = a_webhook(gone.url)

    (outcome,) = webhook.deliver([a_row()])
    webhook.close()

    assert isinstance(outcome, Unreachable) and "ConnectError" in outcome.error


def test_a_name_that_nobody_has_is_an_outage() -> None:
    webhook = a_webhook("http://nobody.invalid/hook")

    (outcome,) = webhook.deliver([a_row()])
    webhook.close()

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
    server: Server, post: Callable[..., Outcome], answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.answer = answer
    began = time.monotonic()

    outcome = post()

    assert isinstance(outcome, Unreachable)
    assert time.monotonic() - began < AT_MOST_SECONDS


@pytest.mark.parametrize(("status", "kind"), [(200, Delivered), (422, Rejected), (500, Unreachable)])
@pytest.mark.parametrize("trouble", ["trickles", "is huge", "stops", "is no gzip", "is a bomb"])
def test_the_status_counts_whatever_the_body_is(
    server: Server, post: Callable[..., Outcome], status: int, kind: type[Outcome], trouble: str
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
def test_an_answer_that_is_none_is_an_outage(server: Server, post: Callable[..., Outcome], raw: bytes) -> None:
    server.answer = sending(raw)

    assert isinstance(post(), Unreachable)


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", "Grund: ü".encode(), b"a\0b", b"x" * 100_000])
def test_what_is_kept_of_an_answer_is_short_and_can_be_stored(
    server: Server, post: Callable[..., Outcome], body: bytes
) -> None:
    server.answer = saying(400, body)

    outcome = post()

    assert isinstance(outcome, Rejected)
    assert "\0" not in outcome.error
    assert len(outcome.error) < 400
    outcome.error.encode()


def test_a_server_that_recovers_is_found_up_again_on_a_fresh_connection(
    server: Server, post: Callable[..., Outcome]
) -> None:
    server.answer = sending(b"nonsense")
    assert isinstance(post(), Unreachable)

    server.answer = saying(204)

    assert post() == Delivered()


def test_a_connection_is_used_again(server: Server, post: Callable[..., Outcome]) -> None:
    for _ in range(5):
        post()

    assert len(server.connections) == 1


def test_no_more_connections_are_open_than_the_route_allows(server: Server) -> None:
    webhook = a_webhook(server.url, concurrency=3)

    outcomes = webhook.deliver([a_row(number) for number in range(50)])
    webhook.close()

    assert outcomes == [Delivered()] * 50
    assert len(server.connections) <= 3


def test_a_batch_ends_early_when_the_server_goes_down(server: Server) -> None:
    server.answer = saying(503)
    webhook = a_webhook(server.url, concurrency=2)

    outcomes = webhook.deliver([a_row(number) for number in range(50)])
    webhook.close()

    assert len(server.heard) <= 2
    assert [type(outcome) for outcome in outcomes].count(Held) >= 48


def test_a_body_is_one_line_of_json(server: Server, post: Callable[..., Outcome]) -> None:
    post(a_row(payload=json.dumps({"note": "line\nbreak\u2028"})))

    assert b"\n" not in server.heard[0].body


def test_proxies_and_passwords_of_the_environment_are_left_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    webhook = a_webhook(server.url)

    (outcome,) = webhook.deliver([a_row()])
    webhook.close()

    assert outcome == Delivered()


@pytest.mark.parametrize("secret", ["whsec_no base64!", "whsec_ü", "whsec_x", "whsec_", ""])
def test_a_secret_that_is_none_keeps_the_worker_from_starting(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        a_webhook("http://127.0.0.1:1/", secret=secret)

    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert "'partner'" in said and "HOLDFAST_ROUTES" in said
    assert len(secret) < 8 or secret.removeprefix("whsec_") not in said
