"""A confirmation service: it confirms or refuses each booking, and releases bookings on request."""

from collections import OrderedDict
from collections.abc import Collection
from enum import StrEnum
from typing import Literal

import msgspec

from examples.partners.memory import remember


class BookingStatus(StrEnum):
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    RELEASED = "released"


class Booking(msgspec.Struct, frozen=True):
    """The fields of a request's payload that the service needs."""

    booking_id: str
    sku: str


class ConfirmationRequest(msgspec.Struct, frozen=True):
    event_type: Literal["reservation_confirm", "reservation_release"]
    payload: Booking


class ConfirmationResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the booking is confirmed from now on. Only a refusal has a reason."""

    confirmed: bool
    reason: str | None = None


class Confirmations:
    """An idempotent service: a repeated idempotency key gets the first response and changes nothing."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.bookings: OrderedDict[str, BookingStatus] = OrderedDict()
        self.repeats = 0
        self._responses: OrderedDict[str, ConfirmationResponse] = OrderedDict()

    def respond(self, key: str, request: ConfirmationRequest, *, refuse_skus: Collection[str]) -> ConfirmationResponse:
        """Decide about the request, or repeat the response that this key got before."""
        if key in self._responses:
            self.repeats += 1
            return self._responses[key]
        status, response = self._decide(request, refuse_skus)
        remember(self.bookings, request.payload.booking_id, status)
        remember(self._responses, key, response)
        return response

    def _decide(
        self, request: ConfirmationRequest, refuse_skus: Collection[str]
    ) -> tuple[BookingStatus, ConfirmationResponse]:
        booking = request.payload
        if request.event_type == "reservation_release":
            return BookingStatus.RELEASED, ConfirmationResponse(confirmed=False)
        if self.bookings.get(booking.booking_id) is BookingStatus.RELEASED:
            # A request that was delayed on its way must not undo the release.
            reason = "The booking has been released."
            return BookingStatus.RELEASED, ConfirmationResponse(confirmed=False, reason=reason)
        if booking.sku in refuse_skus:
            reason = f"{booking.sku} is not available."
            return BookingStatus.REFUSED, ConfirmationResponse(confirmed=False, reason=reason)
        return BookingStatus.CONFIRMED, ConfirmationResponse(confirmed=True)
