"""The shapes of what is free of calendars, and of what is reserved of them beside reservations."""

from datetime import datetime, timedelta
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from api.http.fields import ItemId, Sku
from api.reservations.schemas import Instant, Note, Quantity
from domain.calendars import MAX_WINDOW, Availability, Starts
from domain.items import MAX_QUANTITY
from domain.runtime.errors import Invalid

#: The most calendars of one request.
MAX_CALENDARS = 100

MAX_SECONDS = int(MAX_WINDOW.total_seconds())


class NewBlock(msgspec.Struct, forbid_unknown_fields=True):
    """Time of a calendar that nobody may reserve, from `start` until just before `end`: all units, or `quantity`."""

    start: Instant
    end: Instant
    quantity: Quantity | None = None
    note: Note | None = None


class CalendarName(msgspec.Struct, forbid_unknown_fields=True):
    """A calendar. Name it by either `item_id` or `sku`."""

    item_id: ItemId | None = None
    sku: Sku | None = None

    @property
    def name(self) -> int | str:
        """Its id or its sku. Raises Invalid."""
        if (self.item_id is None) == (self.sku is None):
            raise Invalid("items.item_id", "give either item_id or sku" + ", and not both" * (self.sku is not None))
        return self.item_id or self.sku or ""


class AvailabilityQuestion(
    msgspec.Struct, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}, kw_only=True
):
    """What is free of these calendars from the time `from` until just before `to`?

    And, if `duration_seconds` and `step_seconds` are given: when can a reservation of `quantity` units start that lasts
    for so long? Tried are the time `from`, and one start after the other at that distance.
    """

    items: Annotated[list[CalendarName], Meta(min_length=1, max_length=MAX_CALENDARS)]
    since: Instant
    until: Instant
    quantity: Quantity | None = None
    duration_seconds: Annotated[int, Meta(ge=1, le=MAX_SECONDS, examples=[3_600])] | None = None
    step_seconds: Annotated[int, Meta(ge=60, le=MAX_SECONDS, examples=[900])] | None = None


def starts_of(quantity: int | None, duration_seconds: int | None, step_seconds: int | None) -> Starts | None:
    """Return the free starts that are asked for, if they are. Raises Invalid."""
    if duration_seconds is None and step_seconds is None:
        if quantity is not None:
            raise Invalid("quantity", "it is for free starts only: give duration_seconds and step_seconds as well")
        return None
    if duration_seconds is None or step_seconds is None:
        missing = "duration_seconds" if duration_seconds is None else "step_seconds"
        raise Invalid(missing, "give both duration_seconds and step_seconds, or neither")
    return Starts(quantity or 1, timedelta(seconds=duration_seconds), timedelta(seconds=step_seconds))


class StepView(msgspec.Struct):
    """From `start` until just before `end`, that many units can be reserved, buffers and opening hours included."""

    start: datetime
    end: datetime
    available_quantity: Annotated[int, Meta(ge=0, le=MAX_QUANTITY, examples=[1])]


class AvailabilityView(msgspec.Struct):
    """What is free of a calendar. A period can be reserved if each step that it touches has enough units.

    `starts` is null if it was not asked for.
    """

    item_id: ItemId
    sku: Sku
    steps: list[StepView]
    starts: list[datetime] | None

    @classmethod
    def of(cls, one: Availability) -> Self:
        steps = [StepView(*step) for step in one.steps]
        return cls(one.item.id, one.item.sku, steps, None if one.starts is None else list(one.starts))


class AvailabilityList(msgspec.Struct):
    """What is free of each of the calendars, in the order in which they were named."""

    availability: list[AvailabilityView]
