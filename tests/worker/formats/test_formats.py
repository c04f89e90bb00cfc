"""The formats that a route may choose. Each agrees with its contract or its specification."""

import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given

from domain.events.validation import SCHEMAS
from domain.outbox import Route, Row
from domain.runtime.errors import ConfigurationError
from tests.support.builders import an_event
from tests.worker.formats.test_envelope import documents, texts
from worker.formats import FORMATS, Message, format_of

EVENT = UUID("0193f3a2-7c1e-7b6a-9d3f-000000000001")
BOOKING = UUID("0193f3a2-7c1e-7b6a-9d3f-000000000002")
MOMENT = datetime(2025, 2, 19, 9, 55, 0, 123_456, tzinfo=UTC)
HEADERS = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "correlation_id": "request-1"}

TYPES = [path.name.removesuffix(".v1.json") for path in SCHEMAS.iterdir()]


def a_row(event_type: str = "booking.created", headers: dict[str, str] | None = None, **payload: object) -> Row:
    recorded = json.dumps(an_event(BOOKING, event_type, **payload).payload)
    return Row(1, EVENT, BOOKING, event_type, recorded, json.dumps(headers or {}), 0, MOMENT, None, None, MOMENT)


def written(row: Row, format_name: str, url: str = "https://shop.example/hook") -> Message:
    return format_of(Route.model_validate({"name": "shop", "url": url, "format": format_name}))(row)


def slot(row: Row) -> tuple[dict[str, Any], dict[str, str]]:
    message = written(row, "slot", "sqs://queue")
    assert message.content_type == "application/json"
    return json.loads(message.body), dict(message.attributes)


PROVIDED: dict[str, Any] = {
    "provider_id": "provider-789",
    "start": "2025-02-19T10:00:00+00:00",
    "end": "2025-02-19T12:00:00+01:00",
}


def test_the_slot_message_of_a_created_booking_is_that_of_the_contract() -> None:
    body, attributes = slot(a_row(guest_id="user-456", sku="slot-123", **PROVIDED))

    assert body == {
        "bookingId": str(BOOKING),
        "userId": "user-456",
        "providerId": "provider-789",
        "slotId": "slot-123",
        "slotStart": "2025-02-19T10:00:00Z",
        "slotEnd": "2025-02-19T11:00:00Z",
        "eventType": "BOOKING_CREATED",
        "timestamp": "2025-02-19T09:55:00Z",
    }
    assert attributes == {"EventType": "BOOKING_CREATED", "BookingId": str(BOOKING), "ProviderId": "provider-789"}


def test_the_slot_message_of_a_confirmed_booking_is_that_of_the_contract() -> None:
    body, attributes = slot(a_row("booking.confirmed", **PROVIDED))

    assert body == {
        "bookingId": str(BOOKING),
        "providerId": "provider-789",
        "acceptedAt": "2025-02-19T09:55:00Z",
        "eventType": "BOOKING_CONFIRMED",
        "timestamp": "2025-02-19T09:55:00Z",
    }
    assert attributes == {"EventType": "BOOKING_CONFIRMED", "BookingId": str(BOOKING), "ProviderId": "provider-789"}


def test_the_slot_message_of_any_other_event_also_has_the_status_and_the_reason() -> None:
    body, attributes = slot(a_row("booking.cancelled", guest_id="user-456", sku="slot-123", reason="rain", **PROVIDED))

    assert body == {
        "bookingId": str(BOOKING),
        "userId": "user-456",
        "providerId": "provider-789",
        "slotId": "slot-123",
        "slotStart": "2025-02-19T10:00:00Z",
        "slotEnd": "2025-02-19T11:00:00Z",
        "status": "cancelled",
        "reason": "rain",
        "eventType": "BOOKING_CANCELLED",
        "timestamp": "2025-02-19T09:55:00Z",
    }
    assert attributes["EventType"] == "BOOKING_CANCELLED"


def test_a_slot_message_has_null_for_what_is_unknown_and_no_empty_attribute() -> None:
    body, attributes = slot(a_row(guest_id=None))

    unknown = ("userId", "providerId", "slotStart", "slotEnd")
    assert [body[name] for name in unknown] == [None] * 4
    assert attributes == {"EventType": "BOOKING_CREATED", "BookingId": str(BOOKING)}
    assert "ProviderId" not in slot(a_row("booking.confirmed", provider_id=""))[1]


def test_the_time_of_a_slot_message_is_in_utc_whatever_the_time_zone_of_the_database() -> None:
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=-5)))

    assert slot(a_row()._replace(created_at=elsewhere))[0]["timestamp"] == "2025-02-19T09:55:00Z"


def test_a_standard_webhook_has_the_structure_that_its_specification_recommends() -> None:
    message = written(a_row(), "standard-webhooks")

    assert json.loads(message.body) == {
        "type": "booking.created",
        "timestamp": "2025-02-19T09:55:00.123456Z",
        "data": an_event(BOOKING).payload,
    }
    assert (message.content_type, message.attributes) == ("application/json", {})


@given(texts, documents)
def test_a_payload_is_inserted_into_the_body_unchanged(event_type: str, payload: object) -> None:
    row = a_row()._replace(type=event_type or "x", payload=json.dumps(payload))

    for format_name, member in (("envelope", "payload"), ("standard-webhooks", "data"), ("cloudevents", "data")):
        body = written(row, format_name).body
        assert row.payload in body and "\n" not in body
        assert json.loads(body)[member] == payload
    assert written(row, "cloudevents-binary").body == row.payload


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("event_type", TYPES)
def test_every_event_can_be_written_in_every_format(format_name: str, event_type: str) -> None:
    message = written(a_row(event_type), format_name)

    json.loads(message.body)
    assert "\n" not in message.body
    assert all(value for value in message.attributes.values())


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_sends_the_request_behind_an_event_and_whether_it_is_a_replay(format_name: str) -> None:
    message = written(a_row(headers=HEADERS | {"replayed": "true", "other": "internal"}), format_name)

    sent = {"traceparent": HEADERS["traceparent"], "X-Request-Id": "request-1", "replayed": "true"}
    assert sent.items() <= message.attributes.items()
    assert "internal" not in message.attributes.values()


@pytest.mark.parametrize("format_name", FORMATS)
def test_no_format_has_more_attributes_than_sqs_takes(format_name: str) -> None:
    row = a_row(headers=HEADERS | {"replayed": "true"}, provider_id="provider-789")

    # SQS takes ten, and the sink adds one.
    assert len(written(row, format_name, "sqs://queue").attributes) < 10


@pytest.mark.parametrize("format_name", ["cloudevents", "cloudevents-binary"])
def test_without_its_package_a_format_can_not_be_used_and_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, format_name: str
) -> None:
    for name in [name for name in sys.modules if "cloudevents" in name.split(".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("worker.formats.cloudevents", raising=False)
    monkeypatch.setitem(sys.modules, "cloudevents", None)

    with pytest.raises(ConfigurationError) as error:
        written(a_row(), format_name)

    message = str(error.value)
    assert message.startswith(f"HOLDFAST_ROUTES: destination 'shop': its format {format_name!r} needs the package")
    assert "package 'cloudevents" in message and "pip install -e '.[cloudevents]'" in message
    assert written(a_row(), "standard-webhooks").body


@pytest.mark.parametrize("format_name", ["xml", "envelopes", "cloudevents-structured"])
def test_a_format_that_does_not_exist_is_refused_with_the_list_of_those_that_do(format_name: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        written(a_row(), format_name)

    message = str(error.value)
    assert message.startswith(f"HOLDFAST_ROUTES: destination 'shop': there is no format {format_name!r};")
    assert all(name in message for name in FORMATS)
