"""Slots over HTTP: publishing and listing them. They are booked in `bookings`.

Source: 3-slots-providers-sqs.md, "API Endpoints" and "Future Enhancements".
"""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session

from api.bulkheads import ClientBulkhead
from api.http.decoding import NO_NUL, Strict
from api.http.headers import key_of, principal_of
from api.http.paths import segment
from api.http.payloads import hash_of
from api.http.queries import TIMESTAMP, timestamp_of
from api.http.responses import answered, changing, reading
from api.providers import bookings
from api.providers.schemas import NewSlot, SlotPage, SlotView
from api.reservations import cursors
from domain import idempotency, items, providers
from domain.access import Reach
from domain.items import MAX_ID, Item
from domain.providers import After
from domain.runtime.errors import NotAllowed, SkuTaken, SlotsOverlap, UnknownSlot
from domain.runtime.identity import new_id

AnyRequest = Request[Any, Any, Any]

PATH = "/providers/{provider_id:str}/slots"

ProviderInPath = Annotated[str, Parameter(min_length=1, max_length=64, pattern=NO_NUL, description="The provider")]


@post(PATH, dto=Strict[NewSlot], responses=changing(SkuTaken, SlotsOverlap), tags=["slots"], operation="slots.publish")
async def publish_slot(
    request: AnyRequest, provider_id: ProviderInPath, data: NewSlot, changes: ClientBulkhead, reach: Reach
) -> Response[SlotView]:
    """Publish a slot of a provider: one unit of its time, which one user can book."""
    provider_id = segment(provider_id)
    if not reach.covers(venue=None, provider=provider_id):
        raise NotAllowed("slots.publish")
    key, period = key_of(request.scope, "slots.publish"), data.period
    payload_hash = hash_of(await request.body(), provider_id) if key else ""
    slot_id = data.slot_id or str(new_id())

    def publish(session: Session) -> Item:
        slot = providers.publish(session, provider_id, slot_id, period, name=data.name, may_overlap=data.allow_overlap)
        items.audit_creation(session, slot, who=principal_of(request.scope).name)
        return slot

    outcome = await changes.run(lambda session: idempotency.once(session, key, payload_hash, publish, _render))
    return answered(outcome, status=201, at=f"/providers/{quote(provider_id, safe='')}/slots")


def _render(slot: Item) -> str:
    return msgspec.json.encode(SlotView.of(slot)).decode()


@get(PATH, responses=reading(), tags=["slots"], operation="slots.list")
async def list_slots(
    provider_id: ProviderInPath,
    lists: ClientBulkhead,
    since: Annotated[
        str | None, Parameter(query="from", description="Starts at this time or later", schema_extra=TIMESTAMP)
    ] = None,
    before: Annotated[
        str | None, Parameter(query="to", description="Starts before this time", schema_extra=TIMESTAMP)
    ] = None,
    limit: Annotated[int, Parameter(ge=1, le=1_000, description="Maximum number of slots")] = 100,
    cursor: Annotated[str | None, Parameter(max_length=100, pattern=NO_NUL)] = None,
) -> SlotPage:
    """List the slots of a provider in order of start."""
    bounds = timestamp_of("from", since), timestamp_of("to", before)
    after = None if cursor is None else After(*cursors.read_start(cursor, _item_id))

    def read(session: Session) -> SlotPage:
        found = providers.find(
            session, segment(provider_id), since=bounds[0], before=bounds[1], after=after, limit=limit
        )
        return SlotPage.of(found, limit)

    return await lists.run(read)


def _item_id(text: str) -> int:
    """Return the id in a cursor. Raises ValueError."""
    item_id = int(text)
    if not 0 < item_id <= MAX_ID:
        raise ValueError
    return item_id


@get(f"{PATH}/{{slot_id:str}}", responses=reading(UnknownSlot), tags=["slots"], operation="slots.list")
async def get_slot(
    provider_id: ProviderInPath,
    slot_id: Annotated[str, Parameter(max_length=64, pattern=NO_NUL, description="The slot")],
    reads: ClientBulkhead,
) -> SlotView:
    """Get a slot of a provider."""
    return await reads.run(lambda session: SlotView.of(providers.get(session, segment(provider_id), slot_id)))


ROUTES: Sequence[HTTPRouteHandler] = (publish_slot, list_slots, get_slot, *bookings.ROUTES)
