"""An example of each operation on the outbox, for the OpenAPI document."""

from collections.abc import Mapping
from uuid import UUID

import msgspec
from msgspec.structs import replace

from api.http.fields import RESERVATION_ID
from api.http.headers import KEY, REPLAYED
from api.http.openapi import CHANGED, MADE, Shown
from api.outbox.schemas import (
    ActionRequest,
    DeadLetterRequest,
    DeliveryList,
    DeliveryState,
    DeliveryView,
    DestinationList,
    DestinationStatusView,
    DestinationView,
    GroupList,
    GroupView,
    LetterPage,
    LetterView,
    Progress,
    ReplayRequest,
    Selected,
    SelectedLetters,
)
from domain.outbox.operations.destinations import Condition
from domain.outbox.operations.status import MAX_COUNTED

_DOWN = DestinationStatusView(
    name="shop",
    condition=Condition.DOWN,
    routed=True,
    reason="503 Service Unavailable",
    paused_at=None,
    down_since=MADE,
    next_probe_at=CHANGED,
)
_PAUSED = replace(_DOWN, condition=Condition.PAUSED, paused_at=CHANGED, reason="Stocktaking (OPS-7) (ann@ops)")
_STATUS = DestinationView(
    **msgspec.structs.asdict(_DOWN),
    pending=MAX_COUNTED + 32,
    waiting=32,
    dead=3,
    lower_bounds=["pending"],
    oldest_pending_at=MADE,
    lanes_leased=0,
)
_LETTER = LetterView(
    id=17,
    event_id=UUID("01943bb1-8a01-7c1d-8f6e-0d8a1b2c3d4e"),
    reservation_id=RESERVATION_ID,
    destination=_DOWN.name,
    type="booking.created",
    group="3fa9c1d2",
    attempts=1,
    error="422 Unprocessable Entity: no room 101",
    created_at=MADE,
    dead_at=CHANGED,
    replayed_at=None,
)
_GROUP = GroupView(
    group=_LETTER.group,
    destination=_LETTER.destination,
    type=_LETTER.type,
    error="# Unprocessable Entity: no room #",
    rows=3,
    oldest=MADE,
    newest=CHANGED,
    example_event_id=_LETTER.event_id,
)
_DELIVERY = DeliveryView(
    event_id=_LETTER.event_id,
    reservation_id=RESERVATION_ID,
    type=_LETTER.type,
    destination=_DOWN.name,
    created_at=MADE,
    replayed_at=None,
    states=[DeliveryState(kind="breaker_open", since=MADE, until=CHANGED, reason=_DOWN.reason)],
)
_WHY = "The shop is back (OPS-7)"
_ACTION = ActionRequest(_WHY)
_LETTERS = DeadLetterRequest(selection=SelectedLetters(group=_GROUP.group), why=_WHY)
_DELIVERED = ReplayRequest(selection=Selected(type="booking.*", since=MADE), why=_WHY)
_DONE = Progress(rows=3, dry_run=False, skipped_steps=None, before=CHANGED, next_cursor=None)

OPERATIONS: Mapping[str, Shown] = {
    "list_destinations": Shown(answer=DestinationList([_STATUS])),
    "pause_destination": Shown(body=_ACTION, answer=_PAUSED, reads=(KEY,), writes=REPLAYED),
    "resume_destination": Shown(body=_ACTION, answer=_DOWN, reads=(KEY,), writes=REPLAYED),
    "probe_destination": Shown(body=_ACTION, answer=_DOWN, reads=(KEY,), writes=REPLAYED),
    "list_dead_letters": Shown(answer=LetterPage([_LETTER], None)),
    "group_dead_letters": Shown(answer=GroupList([_GROUP])),
    "replay_dead_letters": Shown(body=_LETTERS, answer=_DONE, reads=(KEY,), writes=REPLAYED),
    "discard_dead_letters": Shown(body=_LETTERS, answer=_DONE, reads=(KEY,), writes=REPLAYED),
    "replay_delivered": Shown(body=_DELIVERED, answer=_DONE, reads=(KEY,), writes=REPLAYED),
    "explain_delivery": Shown(answer=DeliveryList([_DELIVERY])),
}
