"""A confirmation service: it says yes or no to each hold, and lets go of it when told to."""

from collections import OrderedDict
from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from examples.partners.memory import remember


class Standing(StrEnum):
    """How a booking stands with the confirmation service."""

    CONFIRMED = "confirmed"
    REFUSED = "refused"
    RELEASED = "released"


class Booking(msgspec.Struct, frozen=True):
    """What it is told of a booking. It needs little of this, and notices when any of it is missing."""

    booking_id: str
    item_id: int
    sku: str
    quantity: int
    status: str
    version: int
    guest_id: str | None
    expires_at: datetime | None


class Envelope(msgspec.Struct, frozen=True):
    """What it is asked. Fields that it does not know are none of its business."""

    event_id: str
    event_type: Literal["reservation_confirm", "reservation_release"]
    payload: Booking
    timestamp: datetime
    source: str
    version: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the booking is confirmed from now on. A refusal has a reason."""

    confirmed: bool
    reason: str | None = None


class Confirmations:
    """An idempotent consumer: a key that comes again gets its first answer, and nothing else happens."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.bookings: OrderedDict[str, Standing] = OrderedDict()
        self.repeats = 0
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def answer(self, key: str, envelope: Envelope, *, refuse_skus: Collection[str]) -> Answer:
        """Answer as the first time, or think about it now."""
        if key in self._answers:
            self.repeats += 1
            return self._answers[key]
        confirming = envelope.event_type == "reservation_confirm"
        answer = self._confirm(envelope.payload, refuse_skus) if confirming else self._release(envelope.payload)
        remember(self._answers, key, answer)
        return answer

    def _confirm(self, booking: Booking, refuse_skus: Collection[str]) -> Answer:
        # A request that was held up on its way must not bring back what was let go of meanwhile.
        if self.bookings.get(booking.booking_id) is Standing.RELEASED:
            return Answer(confirmed=False, reason="the booking was released before")
        if booking.sku in refuse_skus:
            remember(self.bookings, booking.booking_id, Standing.REFUSED)
            return Answer(confirmed=False, reason=f"{booking.sku} can't be had from us")
        remember(self.bookings, booking.booking_id, Standing.CONFIRMED)
        return Answer(confirmed=True)

    def _release(self, booking: Booking) -> Answer:
        """Let go, whatever was answered before and whatever the sku: a release is never refused."""
        remember(self.bookings, booking.booking_id, Standing.RELEASED)
        return Answer(confirmed=False)
