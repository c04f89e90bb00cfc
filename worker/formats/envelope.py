"""The wire format of the booking contract: 1-booking-lifecycle.md, "Event Schema"."""

import json

from domain.outbox import Row
from worker.formats.message import Message

SOURCE = "booking-reservation-service"

#: The version of the envelope, not of the reservation.
VERSION = "1.0"


def write(row: Row) -> Message:
    return Message(wrap(row), attributes=trace(row))


def wrap(row: Row) -> str:
    """Return the event as one line of JSON: event_type, payload, timestamp, source, version.

    `event_id` is added to them: it is how a consumer knows a repeat. The payload is JSON
    already and goes in as it is.
    """
    return (
        f'{{"event_id":"{row.event_id}","event_type":{json.dumps(row.type)},"payload":{row.payload},'
        f'"timestamp":"{row.created_at.isoformat()}","source":"{SOURCE}","version":"{VERSION}"}}'
    )


#: What ties an event to the request that it came of, and says that it was sent before: as recorded and as sent.
TRACE = {"traceparent": "traceparent", "correlation_id": "X-Request-Id", "replayed": "replayed"}


def trace(row: Row) -> dict[str, str]:
    """Return the headers that tell of the request behind an event: its W3C trace context and its id."""
    if row.headers == "{}":
        return {}
    recorded = json.loads(row.headers)
    return {sent: recorded[name] for name, sent in TRACE.items() if name in recorded}
