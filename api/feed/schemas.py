"""The shapes of the feed."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

import msgspec
from msgspec import Meta, Raw

from domain.feed import FeedEvent, Page


class EventView(msgspec.Struct):
    """An event of the feed. `created_at` is when it was recorded; the payload fits the JSON Schema of its type."""

    position: Annotated[int, Meta(ge=1)]
    event_id: UUID
    type: str
    reservation_id: UUID
    created_at: datetime
    payload: Raw

    @classmethod
    def of(cls, event: FeedEvent) -> Self:
        return cls(
            position=event.position,
            event_id=event.event_id,
            type=event.type,
            reservation_id=event.aggregate_id,
            created_at=event.created_at,
            payload=Raw(event.payload),
        )


class EventPage(msgspec.Struct):
    """Events in order of position. Send `next_after` back as `after` for what follows, now or later.

    A page with fewer events than `limit` may have others after it: `next_after` is then less than `newest`.
    """

    events: list[EventView]
    next_after: Annotated[int, Meta(ge=0)]
    newest: Annotated[int, Meta(ge=0)]

    @classmethod
    def of(cls, page: Page) -> Self:
        return cls([EventView.of(event) for event in page.events], page.read_up_to, page.newest)
