"""An example of the feed, for the OpenAPI document."""

from collections.abc import Mapping
from uuid import UUID

import msgspec
from msgspec import Raw

from api.feed.schemas import EventPage, EventView
from api.http.fields import ITEM_ID, RESERVATION_ID, SKU
from api.http.headers import LAST_EVENT_ID
from api.http.openapi import MADE, Shown

_PAYLOAD = {
    "booking_id": RESERVATION_ID,
    "item_id": ITEM_ID,
    "sku": SKU,
    "quantity": 2,
    "lines": [{"item_id": ITEM_ID, "sku": SKU, "quantity": 2}],
    "status": "PENDING",
    "version": 1,
}
_EVENT = EventView(
    position=17,
    event_id=UUID("01943bb1-8a01-7c1d-8f6e-0d8a1b2c3d4e"),
    type="booking.created",
    reservation_id=RESERVATION_ID,
    created_at=MADE,
    payload=Raw(msgspec.json.encode(_PAYLOAD)),
)

OPERATIONS: Mapping[str, Shown] = {
    "list_events": Shown(answer=EventPage([_EVENT], next_after=17, newest=17), reads=(LAST_EVENT_ID,)),
}
