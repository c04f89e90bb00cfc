"""An example of each operation on slots, for the OpenAPI document."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from api.http.fields import RESERVATION_ID
from api.http.headers import KEY, LOCATION, REPLAYED
from api.http.openapi import CHANGED, MADE, Shown
from api.providers.schemas import (
    Decision,
    NewSlot,
    NewSlotBooking,
    SlotBookingAnswer,
    SlotBookingChange,
    SlotBookingHistory,
    SlotBookingView,
    SlotPage,
    SlotView,
)

_START = datetime(2030, 5, 3, 10, 0, tzinfo=UTC)
_END = _START + timedelta(hours=1)
_SLOT = SlotView("slot-123", "provider-789", "Consultation", _START, _END, "available")
_PENDING = SlotBookingView(RESERVATION_ID, "user-456", "provider-789", "slot-123", _START, _END, "pending")


def _shown(status: str, body: Decision | None = None) -> Shown:
    answer = SlotBookingAnswer(
        {"confirmed": "Booking accepted successfully"}.get(status, f"Booking {status} successfully"),
        replace(_PENDING, status=status),
    )
    return Shown(body=body, answer=answer, reads=(KEY,), writes=REPLAYED)


OPERATIONS: Mapping[str, Shown] = {
    "publish_slot": Shown(
        body=NewSlot(_START, _END, slot_id="slot-123", name="Consultation"),
        answer=_SLOT,
        reads=(KEY,),
        writes=LOCATION | REPLAYED,
    ),
    "list_slots": Shown(answer=SlotPage([_SLOT], None)),
    "get_slot": Shown(answer=_SLOT),
    "book_slot": Shown(
        body=NewSlotBooking("slot-123", "user-456"), answer=_PENDING, reads=(KEY,), writes=LOCATION | REPLAYED
    ),
    "get_slot_booking": Shown(answer=_PENDING),
    "get_slot_booking_history": Shown(
        answer=SlotBookingHistory(
            RESERVATION_ID,
            [
                SlotBookingChange(None, "pending", "user:user-456", None, MADE),
                SlotBookingChange("pending", "confirmed", "user:provider-789", None, CHANGED),
            ],
        )
    ),
    "accept_slot_booking": _shown("confirmed"),
    "reject_slot_booking": _shown("rejected", Decision("On leave")),
    "cancel_slot_booking": _shown("cancelled", Decision("The user is ill")),
}
