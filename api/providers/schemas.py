"""The shapes of the slot contract: camelCase, and statuses in lower case. Source: 3-slots-providers-sqs.md."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

import msgspec
from msgspec import Meta

from api.http.decoding import END
from api.reservations.cursors import write_start
from domain.calendars import Period
from domain.items import Item
from domain.providers import slot_of
from domain.reservations import Reservation
from domain.reservations.history import HistoryEntry

SlotId = Annotated[str, Meta(pattern=rf"^(?!\.{{1,2}}$)[A-Za-z0-9._~-]{{1,64}}{END}", examples=["slot-123"])]
UserId = Annotated[str, Meta(min_length=1, max_length=64, examples=["user-456"])]
ProviderId = Annotated[str, Meta(min_length=1, max_length=64, examples=["provider-789"])]
Name = Annotated[str, Meta(min_length=1, max_length=255, examples=["Consultation"])]
Reason = Annotated[str, Meta(min_length=1, max_length=500, examples=["On leave"])]
Status = Annotated[str, Meta(examples=["pending"])]


class NewSlot(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A slot to publish. Without a `slotId` it gets one.

    Two slots of a provider may overlap only if the second one says so: `allowOverlap`.
    """

    start: datetime
    end: datetime
    slot_id: SlotId | None = None
    name: Name | None = None
    allow_overlap: bool = False

    @property
    def period(self) -> Period:
        """When it is. Raises Invalid."""
        return Period(self.start, self.end)


class SlotView(msgspec.Struct, rename="camel"):
    """A slot of a provider. It is `booked` while it has a booking that was neither rejected nor cancelled."""

    id: SlotId
    provider_id: ProviderId
    name: Name
    start: datetime
    end: datetime
    status: Literal["available", "booked"]

    @classmethod
    def of(cls, item: Item) -> Self:
        period = slot_of(item)
        assert period and item.provider, "it is a slot"
        status: Literal["available", "booked"] = "available" if item.available_quantity else "booked"
        return cls(item.sku, item.provider, item.name, period.start, period.end, status)


class SlotPage(msgspec.Struct, rename="camel"):
    """Slots in order of start. If there is a `nextCursor`, there may be more: send it back as `cursor`."""

    slots: list[SlotView]
    next_cursor: str | None

    @classmethod
    def of(cls, found: Sequence[Item], limit: int) -> Self:
        last = found[-1] if len(found) == limit else None
        cursor = write_start(last.slot_starts_at, last.id) if last and last.slot_starts_at else None
        return cls([SlotView.of(item) for item in found], cursor)


class NewSlotBooking(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A booking of a slot for a user."""

    slot_id: Annotated[str, Meta(min_length=1, max_length=64, examples=["slot-123"])]
    user_id: UserId


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    """Why a booking is rejected or cancelled, if somebody says so."""

    reason: Reason | None = None


class SlotBookingView(msgspec.Struct, rename="camel"):
    """A booking of a slot. It is `pending` until its provider accepts or rejects it, or the slot begins."""

    id: UUID
    user_id: UserId | None
    provider_id: ProviderId
    slot_id: SlotId
    start: datetime
    end: datetime
    status: Status

    @classmethod
    def of(cls, one: Reservation, slot: Period) -> Self:
        assert one.provider, "slots have one"
        return cls(one.id, one.guest_id, one.provider, one.sku, slot.start, slot.end, one.status.lower())

    def rendered(self) -> str:
        """Return it as JSON."""
        return msgspec.json.encode(self).decode()


class SlotBookingAnswer(msgspec.Struct):
    """What was done, and the booking as it is now."""

    message: str
    booking: SlotBookingView

    def rendered(self) -> str:
        """Return it as JSON."""
        return msgspec.json.encode(self).decode()


class SlotBookingChange(msgspec.Struct, rename="camel"):
    """One change of a booking. The first one, of the making, has no `fromStatus`."""

    from_status: Status | None
    to_status: Status
    changed_by: str
    reason: str | None
    created_at: datetime

    @classmethod
    def of(cls, entry: HistoryEntry) -> Self:
        before = entry.from_status and entry.from_status.lower()
        return cls(before, entry.to_status.lower(), entry.changed_by, entry.reason, entry.created_at)


class SlotBookingHistory(msgspec.Struct, rename="camel"):
    """The changes of a booking, the oldest first."""

    booking_id: UUID
    history: list[SlotBookingChange]
