"""CloudEvents, read back with the SDK that consumers use."""

import json
from dataclasses import replace

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import amqp, http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given

from domain.outbox import Delivered, Row
from tests.support.builders import Db, an_event, recorded
from tests.support.http_server import a_server
from tests.support.outbox import a_lane, fetched, with_shop
from tests.worker.formats.test_envelope import texts
from tests.worker.formats.test_formats import HEADERS, a_row, written
from tests.worker.sinks.test_webhook import a_webhook
from worker.formats import Message

JSON = JSONFormat()
URLS = {
    "http": "https://shop.example/hook",
    "kafka": "kafka://broker/topic",
    "amqp": "amqp://broker/exchange",
    "amqps": "amqps://broker/exchange",
    "sqs": "sqs://queue",
    "redis": "redis://server/0",
}


def read(message: Message, transport: str) -> BaseCloudEvent:
    """Read a message in binary mode as consumers of that transport do."""
    attributes, body = dict(message.attributes), message.body.encode()
    if transport == "kafka":
        headers = {name: value.encode() for name, value in attributes.items()}
        headers |= {"content-type": message.content_type.encode()}
        return kafka.from_binary(kafka.KafkaMessage(headers, None, body), JSON, CloudEvent)
    if transport.startswith("amqp"):
        properties = {"content-type": message.content_type}
        return amqp.from_binary(amqp.AMQPMessage(properties, attributes, body), JSON, CloudEvent)
    headers_of_http = attributes | {"Content-Type": message.content_type}
    return http.from_binary(http.HTTPMessage(headers_of_http, body), JSON, CloudEvent)


def require_same(event: BaseCloudEvent, row: Row, **extensions: str) -> None:
    """Fail unless the event has everything that the row has, and nothing else."""
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": str(row.event_id),
        "source": "/holdfast",
        "type": row.type,
        "subject": str(row.aggregate_id),
        "time": row.created_at,
        "datacontenttype": "application/json",
        "dataschema": f"urn:holdfast:event:{row.type}:v1",
        **extensions,
    }
    assert event.get_data() == json.loads(row.payload)


def test_a_structured_event_has_everything_that_its_row_has() -> None:
    row = a_row(guest_id="Zoë\u2028")

    message = written(row, "cloudevents")

    assert message.content_type == "application/cloudevents+json"
    sent = http.HTTPMessage({"content-type": message.content_type}, message.body.encode())
    require_same(http.from_structured(sent, JSON, CloudEvent), row)


@pytest.mark.parametrize("transport", URLS)
def test_a_binary_event_has_everything_that_its_row_has_on_every_transport(transport: str) -> None:
    row = a_row("booking.cancelled", reason="Zoë\u2028")

    message = written(row, "cloudevents-binary", URLS[transport])

    assert (message.content_type, message.body) == ("application/json", row.payload)
    require_same(read(message, transport), row)


@pytest.mark.parametrize(("transport", "name"), [
    ("http", "ce-id"), ("sqs", "ce-id"), ("redis", "ce-id"),
    ("kafka", "ce_id"), ("amqp", "cloudEvents_id"), ("amqps", "cloudEvents_id"),
])  # fmt: skip
def test_a_header_has_the_name_that_the_binding_of_its_transport_gives_it(transport: str, name: str) -> None:
    attributes = written(a_row(), "cloudevents-binary", URLS[transport]).attributes

    prefix = name.removesuffix("id")
    assert {one.removeprefix(prefix) for one in attributes if one.startswith(prefix)} == {
        "specversion", "id", "source", "type", "subject", "time", "dataschema"
    }  # fmt: skip
    assert all(one.startswith(prefix) for one in attributes)


@pytest.mark.parametrize("transport", ["structured", *URLS])
def test_the_trace_context_and_the_mark_of_a_replay_are_attributes_of_the_event(transport: str) -> None:
    row = a_row(headers=HEADERS | {"replayed": "true"})

    if transport == "structured":
        event: BaseCloudEvent = JSON.read(CloudEvent, written(row, "cloudevents").body)
    else:
        event = read(written(row, "cloudevents-binary", URLS[transport]), transport)

    require_same(event, row, traceparent=HEADERS["traceparent"], replayed="true")


@given(texts.filter(bool))
def test_any_text_can_be_read_back_from_a_header_of_http(text: str) -> None:
    row = a_row()._replace(type=text)

    message = written(row, "cloudevents-binary")

    assert all("!" <= character <= "~" and character != '"' for character in message.attributes["ce-type"])
    require_same(read(message, "http"), row)


def test_the_example_of_the_specification_is_encoded_as_the_specification_says() -> None:
    message = written(a_row()._replace(type="Euro € 😀"), "cloudevents-binary")

    assert message.attributes["ce-type"] == "Euro%20%E2%82%AC%20%F0%9F%98%80"


@pytest.mark.parametrize("format_name", ["cloudevents", "cloudevents-binary"])
def test_the_receiver_of_a_webhook_reads_the_recorded_event_with_the_sdk(db: Db, format_name: str) -> None:
    shop = with_shop(db)
    recorded(shop, replace(an_event(guest_id="Zoë\u2028"), headers=HEADERS))
    (row,) = fetched(shop, a_lane(shop))

    with a_server() as server:
        webhook = a_webhook(server.url, format=format_name)
        assert webhook.deliver([row]) == [Delivered()]
        webhook.close()

    (request,) = server.requests
    event = http.from_http(http.HTTPMessage(dict(request.headers), request.body), JSON, CloudEvent)
    require_same(event, row, traceparent=HEADERS["traceparent"])
    # The extension for tracing demands the header as well where there is one hop.
    assert request.headers["traceparent"] == HEADERS["traceparent"]
