"""The queues of Amazon SQS to which the messages of the slot contract go.

Source: 3-slots-providers-sqs.md, "SQS Events" and "Environment Variables".
"""

from collections.abc import Mapping, Sequence

from domain.outbox import Route
from domain.reservations.events import SLOT_EVENT
from domain.reservations.lifecycle import Status
from domain.runtime.settings import Settings

#: The messages to providers: what is asked of them, and what is not asked any more.
REQUESTS = (Status.PENDING, Status.CANCELLED, Status.EXPIRED)

#: The messages to users: what has become of their bookings.
CONFIRMATIONS = (Status.CONFIRMED, Status.REJECTED, Status.CANCELLED, Status.EXPIRED)


def slot_queues(settings: Settings) -> Mapping[str, Route]:
    """Return the queues, by the variable that names each. Without it, there is none."""
    queues = {
        "SQS_BOOKING_REQUEST_QUEUE_URL": _route(
            "slot-booking-requests", settings.sqs_booking_request_queue_url, REQUESTS
        ),
        "SQS_BOOKING_CONFIRMATION_QUEUE_URL": _route(
            "slot-booking-confirmations", settings.sqs_booking_confirmation_queue_url, CONFIRMATIONS
        ),
    }
    return {variable: route for variable, route in queues.items() if route}


def _route(name: str, url: str | None, statuses: Sequence[Status]) -> Route | None:
    if url is None:
        return None
    events = tuple(SLOT_EVENT[status] for status in statuses)
    return Route(name=name, url=f"sqs://{url.removeprefix('https://')}", events=events, format="slot")
