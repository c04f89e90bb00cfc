"""A webhook receiver: it believes what is signed, and remembers it in order of receipt."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import islice

import msgspec
from standardwebhooks import Webhook, WebhookVerificationError

from examples.partners.memory import remember

#: Known to everyone, so it protects nothing; `routes.toml` signs with it.
DEMO_SECRET = "whsec_aG9sZGZhc3QgZGVtbywga25vd24gdG8gZXZlcnlvbmU="


class About(msgspec.Struct, frozen=True):
    """What an event is about, as far as the receiver cares."""

    booking_id: str | None = None


class Event(msgspec.Struct, frozen=True):
    """What an envelope says, as far as the receiver cares."""

    event_type: str
    payload: About


class Receipt(msgspec.Struct, frozen=True):
    """One event that was received. `id` is its `webhook-id`."""

    id: str
    type: str
    booking_id: str | None


class Webhooks:
    """Each event once, in order of first receipt; repeats of a `webhook-id` are only counted."""

    def __init__(self, secret: str) -> None:
        self._signature = Webhook(secret)
        self.forget()

    def forget(self) -> None:
        self._receipts: OrderedDict[str, Receipt] = OrderedDict()
        self.repeats = 0
        #: How many receipts were dropped because newer ones needed the room.
        self.forgotten = 0

    def receive(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Remember an event. Raises WebhookVerificationError, or msgspec.DecodeError for what is no event."""
        self._verify(body, headers)
        event = msgspec.json.decode(body, type=Event)
        webhook_id = headers["webhook-id"]
        if webhook_id in self._receipts:
            self.repeats += 1
            return
        receipt = Receipt(webhook_id, event.event_type, event.payload.booking_id)
        self.forgotten += remember(self._receipts, webhook_id, receipt)

    def _verify(self, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            self._signature.verify(body, dict(headers), json_parse=False)
        except ValueError as error:
            # What the library raises for a signature or a body that is too odd to be compared at all.
            raise WebhookVerificationError(f"Malformed signature or body: {error}") from error

    def since(self, index: int) -> Sequence[Receipt]:
        """Return the receipts from this index on. The first since the start has index 0, forgotten or not."""
        return list(islice(self._receipts.values(), max(0, index - self.forgotten), None))
