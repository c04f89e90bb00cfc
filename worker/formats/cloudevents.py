"""CloudEvents 1.0, written by its SDK: in structured mode, and in binary mode as the binding of each transport says."""

import json
from collections.abc import Mapping
from typing import Any

from cloudevents.core.bindings import amqp, http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from domain.events.validation import schema_id
from domain.outbox import Row
from worker.formats.envelope import trace
from worker.formats.message import Formatter, Message

#: A URI-reference. It is the same for every installation, as the ids of events are unique without it.
SOURCE = "/holdfast"

#: The recorded headers that are attributes of the event itself. Source: the distributed tracing extension.
EXTENSIONS = ("traceparent", "replayed")

JSON = JSONFormat()

CONTENT_TYPE = "application/json"


def structured(row: Row) -> Message:
    """Write the whole event as one JSON document. The payload is JSON already and is inserted as it is."""
    attributes = JSON.write(CloudEvent(_attributes(row))).decode()
    return Message(f'{attributes[:-1]}, "data": {row.payload}}}', JSON.get_content_type(), trace(row))


def binary(scheme: str) -> Formatter:
    """Return the function that writes an event for the transport with this scheme.

    The payload is the body, and everything else is a header, named as the transport's binding says.
    """
    headers = _HEADERS.get(scheme, _http)
    # SQS allows ten attributes per message, and the event itself may have nine.
    own_headers = _none if scheme == "sqs" else trace

    def write(row: Row) -> Message:
        bound = headers(CloudEvent(_attributes(row)))
        return Message(row.payload, CONTENT_TYPE, {**own_headers(row), **bound})

    return write


def _attributes(row: Row) -> dict[str, Any]:
    recorded = {} if row.headers == "{}" else json.loads(row.headers)
    return {
        "id": str(row.event_id),
        "source": SOURCE,
        "type": row.type,
        "subject": str(row.aggregate_id),
        "time": row.created_at,
        "datacontenttype": CONTENT_TYPE,
        "dataschema": schema_id(row.type),
    } | {name: recorded[name] for name in EXTENSIONS if name in recorded}


def _http(event: CloudEvent) -> Mapping[str, str]:
    """Name headers as `ce-id`, with percent-encoded values. SQS and Redis, which have no binding, get the same."""
    return _without_content_type(http.to_binary(event, JSON).headers)


def _kafka(event: CloudEvent) -> Mapping[str, str]:
    """Name headers as `ce_id`, with values in UTF-8."""
    headers = kafka.to_binary(event, JSON).headers
    return _without_content_type({name: value.decode() for name, value in headers.items()})


def _amqp(event: CloudEvent) -> Mapping[str, str]:
    """Name headers as `cloudEvents_id`. The time is text: the number that the SDK writes has no microseconds."""
    time = http.to_binary(event, JSON).headers["ce-time"]
    return amqp.to_binary(event, JSON).application_properties | {"cloudEvents_time": time}


def _without_content_type(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Leave out the content type: each sink sends it as the content type of the message."""
    return {name: value for name, value in headers.items() if name != "content-type"}


def _none(_: Row) -> Mapping[str, str]:
    return {}


_HEADERS = {"kafka": _kafka, "amqp": _amqp, "amqps": _amqp}
