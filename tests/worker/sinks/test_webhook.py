"""Webhooks, posted to a real server: signed, under the same id at every attempt, several at once."""

import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update
from standardwebhooks import Webhook as Signature
from standardwebhooks import WebhookVerificationError

from domain.outbox import Delivered, NotSent, Outcome, Route, Row
from domain.outbox.table import destinations
from domain.runtime.errors import ConfigurationError
from tests.conftest import OpenRelay
from tests.support.builders import some_settings
from tests.support.http_server import Server, a_server, saying
from tests.support.outbox import an_aggregate, destination, recorded_for, rows, states, time_passes
from worker.ordering.pace import Pace
from worker.sinks.webhook import Webhook

SECRET = "whsec_aG9sZGZhc3QgdGVzdHMsIGtub3duIHRvIGV2ZXJ5b25l"
NEW_SECRET = "whsec_dGhlIG5leHQgb25lLCBrbm93biB0byBldmVyeW9uZQ=="

#: The time-out of each post.
TIMEOUT_SECONDS = 5.0


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
    settings = some_settings(delivery_timeout_seconds=TIMEOUT_SECONDS)
    return Webhook(Route(name="partner", url=url, **fields), settings, Pace(Event()))


def a_row(row_id: int = 1, *, event_type: str = "booking.created", payload: str = '{"note": "Zoë\\n"}') -> Row:
    moment = datetime(2030, 1, 1, 12, tzinfo=UTC)
    return Row(row_id, uuid4(), uuid4(), event_type, payload, "{}", 0, moment, None, None, datetime.now(UTC))


def test_the_library_of_the_standard_verifies_the_signature_of_a_webhook(
    server: Server, post: Callable[..., Outcome]
) -> None:
    row = a_row()

    assert post(row) == Delivered()

    (request,) = server.requests
    event = Signature(SECRET).verify(request.body, dict(request.headers))
    assert event["event_id"] == str(row.event_id) == request.headers["webhook-id"]
    assert (event["event_type"], event["payload"]) == ("booking.created", {"note": "Zoë\n"})
    assert request.path == "/hook"
    assert request.headers["content-type"] == "application/json"


def test_a_changed_body_does_not_fit_its_signature(server: Server, post: Callable[..., Outcome]) -> None:
    post()

    (request,) = server.requests
    for forged in (request.body + b" ", request.body.replace(b"created", b"cancelled")):
        with pytest.raises(WebhookVerificationError):
            Signature(SECRET).verify(forged, dict(request.headers))


def test_every_attempt_has_the_same_id_and_a_time_of_its_own(server: Server, post: Callable[..., Outcome]) -> None:
    row = a_row()

    post(row)
    post(row)

    assert len({request.headers["webhook-id"] for request in server.requests}) == 1
    assert all(abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60 for request in server.requests)


def test_without_a_secret_nothing_is_signed(server: Server) -> None:
    webhook = a_webhook(server.url)
    webhook.deliver([a_row()])
    webhook.close()

    assert "webhook-signature" not in server.requests[0].headers
    assert "webhook-id" in server.requests[0].headers


def test_there_are_no_more_connections_than_the_route_allows(server: Server) -> None:
    webhook = a_webhook(server.url, concurrency=3)

    outcomes = webhook.deliver([a_row(number) for number in range(50)])
    webhook.close()

    assert outcomes == [Delivered()] * 50
    assert len(server.connections) <= 3


def test_when_the_server_goes_down_the_rest_of_the_batch_is_not_sent(server: Server) -> None:
    server.answer = saying(503)
    webhook = a_webhook(server.url, concurrency=2)

    outcomes = webhook.deliver([a_row(number) for number in range(50)])
    webhook.close()

    assert len(server.requests) <= 2
    assert [type(outcome) for outcome in outcomes].count(NotSent) >= 48


def test_a_body_is_one_line_of_json(server: Server, post: Callable[..., Outcome]) -> None:
    post(a_row(payload=json.dumps({"note": "line\nbreak\u2028"})))

    assert b"\n" not in server.requests[0].body


@pytest.mark.parametrize("secret", ["whsec_no base64!", "whsec_ü", "whsec_x", "whsec_", ""])
def test_a_secret_that_can_not_be_one_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        a_webhook("http://127.0.0.1:1/", secret=secret)

    message = str(error.value)
    assert "'partner'" in message and "HOLDFAST_ROUTES" in message
    assert len(secret) < 8 or secret.removeprefix("whsec_") not in message


def test_a_webhook_has_the_trace_context_and_the_id_of_the_request_behind_it(
    server: Server, post: Callable[..., Outcome]
) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    recorded = {"traceparent": traceparent, "correlation_id": "request-1", "other": "internal"}

    post(a_row()._replace(headers=json.dumps(recorded)))

    (request,) = server.requests
    assert (request.headers["traceparent"], request.headers["x-request-id"]) == (traceparent, "request-1")
    assert "internal" not in request.headers.values()


def test_while_a_secret_changes_both_the_old_and_the_new_one_verify_a_webhook(server: Server) -> None:
    webhook = a_webhook(server.url, secret=(SECRET, NEW_SECRET))
    webhook.deliver([a_row()])
    webhook.close()

    (request,) = server.requests
    for secret in (SECRET, NEW_SECRET):
        Signature(secret).verify(request.body, dict(request.headers))
    with pytest.raises(WebhookVerificationError):
        Signature("whsec_c29tZWJvZHkgZWxzZQ==").verify(request.body, dict(request.headers))


def test_a_consumer_that_answers_410_is_paused_and_no_event_is_lost(relay_to: OpenRelay, server: Server) -> None:
    server.answer = saying(410, b"moved away")
    relay = relay_to(a_webhook(server.url, concurrency=1))
    ids = recorded_for(relay.db, *(an_aggregate(lane) for lane in (0, 0, 1)))

    for _ in range(3):
        relay.run()
        time_passes(relay.db)

    called = len(server.requests)
    assert called < len(ids), "it is paused when two aggregates have got this answer"
    paused = destination(relay.db)
    assert paused.paused and "410" in paused.reason and "moved away" in paused.reason
    assert "dead" not in states(relay.db) and {row.attempts for row in rows(relay.db)} == {0}
    time_passes(relay.db)
    relay.run()
    assert len(server.requests) == called, "nothing is sent until it is resumed"

    server.answer = saying(204)
    with relay.db.begin() as session:
        session.execute(update(destinations).values(paused=False))
    relay.run()
    assert set(states(relay.db, *ids)) == {"processed"}


@pytest.mark.parametrize("userinfo", ["user:pass%21", "user"])
def test_credentials_in_the_url_are_sent_as_basic_authentication(server: Server, userinfo: str) -> None:
    webhook = a_webhook(server.url.replace("127.0.0.1", f"{userinfo}@127.0.0.1"))
    assert webhook.deliver([a_row()]) == [Delivered()]
    webhook.close()

    (request,) = server.requests
    assert b64decode(request.headers["authorization"].removeprefix("Basic ")).decode().startswith("user:")
    assert "user" not in request.headers["host"]
