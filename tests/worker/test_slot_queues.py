"""The queues of the slot contract: what two variables alone send there, by the lines of 3-slots-providers-sqs.md."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any
from uuid import UUID

import boto3
import pytest
from moto.server import ThreadedMotoServer

from api.reservations.schemas import render_reservation
from domain import providers, reservations
from domain.calendars import Period
from domain.fulfilment import load_routes
from domain.idempotency import Answered
from domain.outbox import Route
from domain.reservations import Claim, Reserve
from domain.reservations.expiry import expire
from domain.reservations.lifecycle import Status
from domain.runtime.errors import Refusal
from tests.conformance.sqs import REGION
from tests.support.builders import Db, a_hold, an_item, let_lapse, reserve, routes_of, some_settings, with_routes
from tests.support.outbox import a_relay
from worker.ordering.pace import Pace
from worker.sinks.sqs.sink import Sqs

#: To make a client of boto3 takes longer than most tests.
pytestmark = pytest.mark.slow

START = datetime(2030, 2, 19, 10, tzinfo=UTC)
END = START + timedelta(hours=1)

QUEUES = ("booking-request-queue", "booking-confirmation-queue")


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a server with both queues."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_SQS": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("sqs", region_name=REGION, endpoint_url=endpoint)
    for queue in QUEUES:
        client.create_queue(QueueName=queue)
    yield client
    for queue in QUEUES:
        client.delete_queue(QueueUrl=client.get_queue_url(QueueName=queue)["QueueUrl"])
    client.close()
    server.stop()


def queue_url(name: str) -> str:
    return f"https://sqs.{REGION}.amazonaws.com/123456789012/{name}"


@pytest.fixture
def queues(db: Db, sqs: Any) -> Db:
    """Sessions that record events for both queues."""
    settings = some_settings(
        sqs_booking_request_queue_url=queue_url(QUEUES[0]), sqs_booking_confirmation_queue_url=queue_url(QUEUES[1])
    )
    return with_routes(db, load_routes(settings))


def sent(queues: Db, sqs: Any) -> list[list[tuple[dict[str, Any], dict[str, str]]]]:
    """Deliver everything to the queues, and take it from them: bodies with attributes, by queue."""
    routes: dict[str, Route] = {route.name: route for route in routes_of(queues).sinks if route.url.startswith("sqs:")}
    sinks = {name: Sqs(route, some_settings(), Pace(Event())) for name, route in routes.items()}
    relay = a_relay(queues, routes, sinks)
    try:
        relay.run()
    finally:
        relay.close(grace_seconds=0)
    return [_taken(sqs, queue) for queue in QUEUES]


def _taken(sqs: Any, queue: str) -> list[tuple[dict[str, Any], dict[str, str]]]:
    found = []
    at = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    while messages := sqs.receive_message(QueueUrl=at, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get(
        "Messages"
    ):
        for message in messages:
            attributes = {name: one["StringValue"] for name, one in message["MessageAttributes"].items()}
            found.append((json.loads(message["Body"]), attributes))
            sqs.delete_message(QueueUrl=at, ReceiptHandle=message["ReceiptHandle"])
    return found


@pytest.fixture
def booking(queues: Db) -> UUID:
    """A booking of a slot."""
    with queues.begin() as session:
        providers.publish(session, "provider-789", "slot-123", Period(START, END))
    wanted = Reserve(
        lines=(Claim("slot-123", 1),), hold_for=None, of_slot=True, guest_id="user-456", render=render_reservation
    )
    (outcome,) = reserve(queues, wanted)
    assert isinstance(outcome, Answered), outcome
    return UUID(json.loads(outcome.text)["id"])


def change(queues: Db, booking: UUID, to: Status, reason: str | None = None) -> None:
    with queues.begin() as session:
        outcome = reservations.change(session, booking, to, reason=reason, routes=routes_of(queues))
        assert not isinstance(outcome, Refusal)


def is_a_time(text: str) -> bool:
    return re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", text) is not None


def test_booking_created_goes_to_the_request_queue(queues: Db, sqs: Any, booking: UUID) -> None:
    ((body, attributes),), confirmations = sent(queues, sqs)

    assert is_a_time(body.pop("timestamp"))
    assert body == {
        "bookingId": str(booking),
        "userId": "user-456",
        "providerId": "provider-789",
        "slotId": "slot-123",
        "slotStart": "2030-02-19T10:00:00Z",
        "slotEnd": "2030-02-19T11:00:00Z",
        "eventType": "BOOKING_CREATED",
    }
    assert attributes == {"EventType": "BOOKING_CREATED", "BookingId": str(booking), "ProviderId": "provider-789"}
    assert confirmations == []


def test_booking_confirmed_goes_to_the_confirmation_queue(queues: Db, sqs: Any, booking: UUID) -> None:
    change(queues, booking, Status.CONFIRMED)

    _, ((body, attributes),) = sent(queues, sqs)

    assert is_a_time(body.pop("timestamp")) and is_a_time(body.pop("acceptedAt"))
    assert body == {"bookingId": str(booking), "providerId": "provider-789", "eventType": "BOOKING_CONFIRMED"}
    assert attributes == {"EventType": "BOOKING_CONFIRMED", "BookingId": str(booking), "ProviderId": "provider-789"}


def test_booking_rejected_goes_to_the_confirmation_queue(queues: Db, sqs: Any, booking: UUID) -> None:
    change(queues, booking, Status.REJECTED, "On leave")

    (_,), ((body, attributes),) = sent(queues, sqs)

    assert (body["eventType"], body["status"], body["reason"]) == ("BOOKING_REJECTED", "rejected", "On leave")
    assert (body["userId"], body["slotId"], attributes["EventType"]) == ("user-456", "slot-123", "BOOKING_REJECTED")


def test_booking_cancelled_goes_to_both_as_provider_and_user_have_to_know(queues: Db, sqs: Any, booking: UUID) -> None:
    change(queues, booking, Status.CANCELLED, "Ill")

    (_, (to_provider, _)), ((to_user, _),) = sent(queues, sqs)

    assert to_provider == to_user
    assert (to_user["eventType"], to_user["reason"]) == ("BOOKING_CANCELLED", "Ill")


def test_a_booking_that_nobody_accepted_until_the_slot_began_has_expired(queues: Db, sqs: Any, booking: UUID) -> None:
    let_lapse(queues, booking)
    with queues.begin() as session:
        assert expire(session, 10, routes_of(queues)) == 1

    (_, (to_provider, _)), ((to_user, _),) = sent(queues, sqs)

    assert (to_provider["eventType"], to_user["eventType"]) == ("BOOKING_EXPIRED", "BOOKING_EXPIRED")


def test_no_other_reservation_gets_there_and_no_step_is_asked_for(queues: Db, sqs: Any, booking: UUID) -> None:
    """The provider decides about a slot; a confirmation service would confirm it in its place."""
    other = a_hold(queues, an_item(queues))
    change(queues, other.id, Status.CONFIRMED)

    requests, confirmations = sent(queues, sqs)

    assert [body["bookingId"] for body, _ in requests] == [str(booking)]
    assert confirmations == []
