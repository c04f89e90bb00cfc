"""The envelope of the booking contract: 1-booking-lifecycle.md, "Event Schema"."""

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

    It also has the `event_id`, by which a consumer recognises a repeat. The payload is JSON already and is inserted
    as it is.
    """
    return (
        f'{{"event_id":"{row.event_id}","event_type":{json.dumps(row.type)},"payload":{row.payload},'
        f'"timestamp":"{row.created_at.isoformat()}","source":"{SOURCE}","version":"{VERSION}"}}'
    )


#: The recorded headers that are sent, and the name under which each is sent. They identify the request that caused
#: the event, and mark an event that is sent again.
TRACE = {"traceparent": "traceparent", "correlation_id": "X-Request-Id", "replayed": "replayed"}


def trace(row: Row) -> dict[str, str]:
    """Return the headers that identify the request behind an event: its W3C trace context and its id."""
    if row.headers == "{}":
        return {}
    recorded = json.loads(row.headers)
    return {sent: recorded[name] for name, sent in TRACE.items() if name in recorded}
