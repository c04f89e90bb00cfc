"""A webhook receiver: it verifies each signature, and keeps the events in order of first receipt."""

from collections import OrderedDict
from collections.abc import Mapping

import msgspec
from standardwebhooks import Webhook, WebhookVerificationError

from examples.partners.memory import remember

#: The secret is public, so it protects nothing. `routes.toml` signs with the same one.
DEMO_SECRET = "whsec_aG9sZGZhc3QgZGVtbywga25vd24gdG8gZXZlcnlvbmU="


class EventPayload(msgspec.Struct, frozen=True):
    """The field of an event's payload that the receiver shows."""

    booking_id: str | None = None


class Event(msgspec.Struct, frozen=True):
    event_type: str
    payload: EventPayload


class ReceivedEvent(msgspec.Struct, frozen=True):
    """An event as `GET /received` shows it. `id` is the header `webhook-id`."""

    id: str
    type: str
    booking_id: str | None


class Webhooks:
    """Each event once. A repeated `webhook-id` is only counted."""

    def __init__(self) -> None:
        self._signature = Webhook(DEMO_SECRET)
        self.clear()

    def clear(self) -> None:
        self.events: OrderedDict[str, ReceivedEvent] = OrderedDict()
        self.repeats = 0
        #: How many of the oldest events were dropped because there was no room for them.
        self.forgotten = 0

    def receive(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Store an event. Raise WebhookVerificationError, or msgspec.DecodeError if the body is not an event."""
        self._verify(body, headers)
        event = msgspec.json.decode(body, type=Event)
        webhook_id = headers["webhook-id"]
        if webhook_id in self.events:
            self.repeats += 1
            return
        received = ReceivedEvent(webhook_id, event.event_type, event.payload.booking_id)
        self.forgotten += remember(self.events, webhook_id, received)

    def _verify(self, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            self._signature.verify(body, dict(headers), json_parse=False)
        except ValueError as error:
            # The library raises ValueError for a signature that it cannot parse.
            raise WebhookVerificationError(f"Malformed signature or body: {error}") from error
