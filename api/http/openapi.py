"""What the OpenAPI document says beyond the signatures of the doors: headers, and an example of everything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from litestar.openapi.spec import (
    Example,
    OpenAPI,
    OpenAPIHeader,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
)
from msgspec.structs import replace

from api.health.routes import Life, Readiness
from api.outbox.schemas import (
    DeliveryView,
    DestinationList,
    DestinationState,
    DestinationView,
    GroupList,
    GroupView,
    LetterChange,
    LetterPage,
    LetterView,
    Progress,
    Reason,
    ReplayOrder,
    Selected,
    SelectedLetters,
    Stand,
    Whys,
)
from api.reservations.schemas import (
    Cancellation,
    Confirmation,
    Guest,
    ItemChange,
    ItemPage,
    ItemView,
    NewItem,
    NewReservation,
    ReservationPage,
    ReservationView,
)
from domain.outbox.operations.destinations import State
from domain.outbox.operations.status import MOST
from domain.reservations.lifecycle import Status

_MADE = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
_CHANGED = _MADE + timedelta(minutes=2)

_ITEM = ItemView(
    id=1,
    sku="ROOM-DOUBLE",
    name="Double room, sea view",
    available_quantity=10,
    stock_quantity=10,
    created_at=_MADE,
    updated_at=_MADE,
)
_HOLD = ReservationView(
    id=UUID("01943bb1-8a00-7e3c-9d54-3f1c0b6a7e21"),
    item_id=_ITEM.id,
    sku=_ITEM.sku,
    quantity=2,
    status=Status.PENDING,
    version=1,
    expires_at=_MADE + timedelta(minutes=15),
    guest=Guest("guest-42"),
    source="api",
    note="Late arrival",
    metadata={"cart": "c-7"},
    cancellation_reason=None,
    created_at=_MADE,
    updated_at=_MADE,
    confirmed_at=None,
    cancelled_at=None,
)
_NEW_HOLD = NewReservation(
    sku=_HOLD.sku, quantity=_HOLD.quantity, guest=_HOLD.guest, note=_HOLD.note, metadata=_HOLD.metadata
)
_CONFIRMED = replace(_HOLD, status=Status.CONFIRMED, version=2, updated_at=_CHANGED, confirmed_at=_CHANGED)
_CANCELLED = replace(
    _HOLD,
    status=Status.CANCELLED,
    version=2,
    updated_at=_CHANGED,
    cancellation_reason="The guest's plans changed",
    cancelled_at=_CHANGED,
)

_DOWN = DestinationState(
    name="shop",
    state=State.DOWN,
    routed=True,
    reason="503 Service Unavailable",
    paused_at=None,
    down_since=_MADE,
    next_probe_at=_CHANGED,
)
_FARES = DestinationView(
    **msgspec.structs.asdict(_DOWN),
    pending=MOST + 32,
    waiting=32,
    dead=3,
    lower_bounds=["pending"],
    oldest_pending_at=_MADE,
    lanes_in_hand=0,
)
_PAUSED = replace(_DOWN, state=State.PAUSED, paused_at=_CHANGED, reason="Stocktaking (OPS-7) (ann@ops)")
_LETTER = LetterView(
    id=17,
    event_id=UUID("01943bb1-8a01-7c1d-8f6e-0d8a1b2c3d4e"),
    reservation_id=_HOLD.id,
    destination=_DOWN.name,
    type="booking.created",
    group="3fa9c1d2",
    attempts=1,
    error="422 Unprocessable Entity: no room 101",
    created_at=_MADE,
    dead_at=_CHANGED,
    replayed_at=None,
)
_GROUP = GroupView(
    group=_LETTER.group,
    destination=_LETTER.destination,
    type=_LETTER.type,
    error="# Unprocessable Entity: no room #",
    rows=3,
    oldest=_MADE,
    newest=_CHANGED,
    example_event_id=_LETTER.event_id,
)
_DELIVERY = DeliveryView(
    event_id=_LETTER.event_id,
    reservation_id=_HOLD.id,
    type=_LETTER.type,
    destination=_DOWN.name,
    created_at=_MADE,
    replayed_at=None,
    stands=[Stand(kind="breaker_open", since=_MADE, until=_CHANGED, reason=_DOWN.reason)],
)
_WHY = "The shop is back (OPS-7)"
_DONE = Progress(rows=3, dry_run=False, answered_steps=None, until=_CHANGED, next_cursor=None)
_LETTERS = LetterChange(selection=SelectedLetters(group=_GROUP.group), why=_WHY)

_KEY = Parameter(
    name="Idempotency-Key",
    param_in="header",
    description="Makes it safe to repeat the request: for 24 hours the same key gets the same answer",
    schema=Schema(type=OpenAPIType.STRING, min_length=1, max_length=255, pattern="^[ -~]+$"),
)
_CLIENT = Parameter(
    name="X-Client-Id",
    param_in="header",
    description="The client to whom the key belongs, in 1 to 255 printable ASCII characters",
    # No pattern: where nothing depends on it, it is not looked at.
    schema=Schema(type=OpenAPIType.STRING),
)
_IF_MATCH = Parameter(
    name="If-Match",
    param_in="header",
    description="The ETag of the version that is to be changed",
    schema=Schema(type=OpenAPIType.STRING, pattern=r'^(\*|(W/)?"?[0-9]{1,9}"?)$'),
)


def _header(description: str) -> OpenAPIHeader:
    return OpenAPIHeader(description=description, schema=Schema(type=OpenAPIType.STRING))


_REPLAYED = {"Idempotency-Replayed": _header("`true` if this answer was given before")}
_ETAG = {"ETag": _header("The version")}
_LOCATION = {"Location": _header("Where it can be read")}
_RETRY_AFTER = {"Retry-After": _header("Seconds after which to ask again")}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How an operation is shown: what it may be sent and answers, and the headers of both."""

    answer: msgspec.Struct
    body: msgspec.Struct | None = None
    reads: Sequence[Parameter] = ()
    writes: Mapping[str, OpenAPIHeader] = field(default_factory=dict)


OPERATIONS: Mapping[str, Shown] = {
    "create_item": Shown(
        body=NewItem(sku=_ITEM.sku, name=_ITEM.name, available_quantity=10),
        answer=_ITEM,
        reads=(_KEY, _CLIENT),
        writes=_LOCATION | _REPLAYED,
    ),
    "list_items": Shown(answer=ItemPage([_ITEM], None)),
    "get_item": Shown(answer=_ITEM),
    "change_item": Shown(
        body=ItemChange(adjust_quantity_by=5),
        answer=replace(_ITEM, available_quantity=15, stock_quantity=15, updated_at=_CHANGED),
        reads=(_KEY, _CLIENT),
        writes=_REPLAYED,
    ),
    "make_reservation": Shown(
        body=_NEW_HOLD, answer=_HOLD, reads=(_KEY, _CLIENT), writes=_LOCATION | _ETAG | _REPLAYED
    ),
    "list_reservations": Shown(answer=ReservationPage([_HOLD], None)),
    "get_reservation": Shown(answer=_HOLD, writes=_ETAG),
    "confirm_reservation": Shown(
        body=Confirmation(expected_version=1),
        answer=_CONFIRMED,
        reads=(_KEY, _CLIENT, _IF_MATCH),
        writes=_ETAG | _REPLAYED,
    ),
    "cancel_reservation": Shown(
        body=Cancellation(reason=_CANCELLED.cancellation_reason),
        answer=_CANCELLED,
        reads=(_KEY, _CLIENT, _IF_MATCH),
        writes=_ETAG | _REPLAYED,
    ),
    "list_destinations": Shown(answer=DestinationList([_FARES])),
    "pause_destination": Shown(body=Reason(_WHY), answer=_PAUSED, reads=(_KEY, _CLIENT), writes=_REPLAYED),
    "resume_destination": Shown(body=Reason(_WHY), answer=_DOWN, reads=(_KEY, _CLIENT), writes=_REPLAYED),
    "probe_destination": Shown(body=Reason(_WHY), answer=_DOWN, reads=(_KEY, _CLIENT), writes=_REPLAYED),
    "list_dead_letters": Shown(answer=LetterPage([_LETTER], None)),
    "group_dead_letters": Shown(answer=GroupList([_GROUP])),
    "replay_dead_letters": Shown(body=_LETTERS, answer=_DONE, reads=(_KEY, _CLIENT), writes=_REPLAYED),
    "discard_dead_letters": Shown(body=_LETTERS, answer=_DONE, reads=(_KEY, _CLIENT), writes=_REPLAYED),
    "replay_delivered": Shown(
        body=ReplayOrder(selection=Selected(type="booking.*", since=_MADE), why=_WHY),
        answer=_DONE,
        reads=(_KEY, _CLIENT),
        writes=_REPLAYED,
    ),
    "explain_delivery": Shown(answer=Whys([_DELIVERY])),
    "live": Shown(answer=Life("ok")),
    "ready": Shown(answer=Readiness("ok", "ok", "ok")),
}


#: They refuse fields that they do not know, which the generated schemas do not say.
STRICT = (
    NewItem,
    ItemChange,
    NewReservation,
    Guest,
    Confirmation,
    Cancellation,
    Reason,
    LetterChange,
    ReplayOrder,
    Selected,
    SelectedLetters,
)


def complete(document: OpenAPI) -> None:
    """Add to a document that was generated from the doors what their signatures do not say."""
    for path in (document.paths or {}).values():
        for operation in filter(None, (path.get, path.post, path.patch)):
            _complete(operation, OPERATIONS[str(operation.operation_id)])
    for struct in STRICT:
        document.components.schemas[struct.__name__].additional_properties = False


def _complete(operation: Operation, shown: Shown) -> None:
    operation.summary = str(operation.operation_id).replace("_", " ").capitalize()
    operation.parameters = [*(operation.parameters or []), *shown.reads]
    if isinstance(operation.request_body, RequestBody):
        _complete_body(operation.request_body, shown.body)
    for status, response in (operation.responses or {}).items():
        assert isinstance(response, OpenAPIResponse)
        if status.startswith("2"):
            response.headers = dict(shown.writes)
            _exemplify(response, shown.answer)
        elif status == "503":
            response.headers = dict(_RETRY_AFTER)


def _complete_body(body: RequestBody, example: msgspec.Struct | None) -> None:
    _exemplify(body, {name: value for name, value in msgspec.to_builtins(example).items() if value is not None})
    for media in body.content.values():
        if isinstance(media.schema, Schema) and media.schema.one_of:  # a body or None: it may be left out
            media.schema, body.required = media.schema.one_of[0], False


def _exemplify(shown: RequestBody | OpenAPIResponse, value: object) -> None:
    for media in (shown.content or {}).values():
        media.examples = {"example": Example(value=value)}
