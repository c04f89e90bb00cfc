"""Items over HTTP."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, cast

from litestar import Request, Response, get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session

from api.bulkheads import ClientBulkhead
from api.http import paths
from api.http.decoding import Strict, given_fields
from api.http.headers import key_of, principal_of
from api.http.payloads import hash_of
from api.http.preconditions import etag_of, if_match_of
from api.http.responses import answered, changing, reading
from api.items.schemas import CALENDAR_FIELDS, ItemChange, ItemPage, ItemView, ListPrice, NewItem, render_item
from domain import calendars, idempotency, items
from domain.access import Reach
from domain.bookings import NO_LIST_PRICE
from domain.idempotency import Answered
from domain.items import MAX_ID, Item
from domain.runtime.errors import (
    CapacityInUse,
    InsufficientAvailableStock,
    Invalid,
    NotAllowed,
    SkuTaken,
    StalePrecondition,
    UnknownItem,
)

AnyRequest = Request[Any, Any, Any]

#: The path below which an item is found by its id, whatever its sku is.
BY_ID = "/items/by-id"

IdInPath = Annotated[int, Parameter(ge=1, le=MAX_ID, description="The id of the item")]

#: Handlers read the sku by `sku_of`: the framework would take `a//b` for `a/b`.
SkuInPath = Annotated[str, Parameter(description="The sku of the item, percent-encoded: a `/` in it is `%2F`")]
Limit = Annotated[int, Parameter(ge=1, le=1_000, description="Maximum number of items")]


@post("/items", dto=Strict[NewItem], responses=changing(SkuTaken), tags=["items"], operation="items.create")
async def create_item(request: AnyRequest, data: NewItem, changes: ClientBulkhead, reach: Reach) -> Response[ItemView]:
    """Create an item: stock, or a calendar."""
    calendar = data.calendar
    key = key_of(request.scope, "items.create")
    payload_hash = hash_of(await request.body()) if key else ""

    _require_own(reach, data, "items.create", None)
    create_one: Callable[..., Item] = (
        partial(calendars.create, settings=calendar)
        if calendar
        else partial(items.create, available_quantity=data.available_quantity or 0)
    )

    def create(session: Session) -> Item:
        price = data.price.columns if data.price else {}
        created = create_one(session, sku=data.sku, name=data.name, venue=data.venue, provider=data.provider, **price)
        items.audit_creation(session, created, who=principal_of(request.scope).name)
        return created

    outcome = await changes.run(lambda session: idempotency.once(session, key, payload_hash, create, render_item))
    return answered(outcome, status=201, at=BY_ID)


@get("/items", responses=reading(), tags=["items"], operation="items.list")
async def list_items(
    lists: ClientBulkhead, limit: Limit = 100, cursor: Annotated[int, Parameter(ge=0, le=MAX_ID)] = 0
) -> ItemPage:
    """List items in order of id."""

    def act(session: Session) -> ItemPage:
        found = items.find(session, after=cursor, limit=limit)
        return ItemPage([ItemView.of(item) for item in found], str(found[-1].id) if len(found) == limit else None)

    return await lists.run(act)


@get("/items/{sku:path}", responses=reading(UnknownItem), tags=["items"], operation="items.read")
async def get_item(request: AnyRequest, sku: SkuInPath, reads: ClientBulkhead) -> Response[ItemView]:
    """Get an item by its sku."""
    return await _get(reads, sku_of(request))


@get("/items/by-id/{item_id:str}", responses=reading(UnknownItem), tags=["items"], operation="items.read")
async def get_item_by_id(item_id: IdInPath, reads: ClientBulkhead) -> Response[ItemView]:
    """Get an item by its id."""
    return await _get(reads, item_id)


async def _get(reads: ClientBulkhead, reference: int | str) -> Response[ItemView]:
    item = await reads.run(lambda session: items.get(session, reference))
    return answered(Answered(render_item(item)), status=200, at=BY_ID)


CHANGES = changing(UnknownItem, InsufficientAvailableStock, CapacityInUse, StalePrecondition)


@patch("/items/{sku:path}", dto=Strict[ItemChange], responses=CHANGES, tags=["items"], operation="items.change")
async def change_item(
    request: AnyRequest, sku: SkuInPath, data: ItemChange, item_changes: ClientBulkhead, reach: Reach
) -> Response[ItemView]:
    """Rename an item, change its stock by a number of units, or change a calendar. The item is named by its sku."""
    return await _change(request, sku_of(request), data, item_changes, reach)


@patch(
    "/items/by-id/{item_id:str}", dto=Strict[ItemChange], responses=CHANGES, tags=["items"], operation="items.change"
)
async def change_item_by_id(
    request: AnyRequest, item_id: IdInPath, data: ItemChange, item_changes: ClientBulkhead, reach: Reach
) -> Response[ItemView]:
    """Rename an item, change its stock by a number of units, or change a calendar. The item is named by its id."""
    return await _change(request, item_id, data, item_changes, reach)


async def _change(
    request: AnyRequest, reference: int | str, data: ItemChange, item_changes: ClientBulkhead, reach: Reach
) -> Response[ItemView]:
    given = _columns(given_fields(data))
    key, if_match = key_of(request.scope, "items.change"), if_match_of(request)
    payload_hash = hash_of(await request.body(), reference) if key else ""

    before: list[Item] = []

    def require(item: Item) -> None:
        before[:] = [item]
        _require_own(reach, item, "items.change", item.venue)
        if if_match is not None:
            if_match.require(etag_of(item.updated_at))

    def change(session: Session) -> Item:
        amend = calendars.amend if given.keys() & set(CALENDAR_FIELDS) else items.amend
        changed = amend(session, reference, precondition=require, **given)
        # Nobody gives an item away, either.
        _require_own(reach, changed, "items.change", before[0].venue)
        items.audit_change(session, before[0], changed, given, who=principal_of(request.scope).name)
        return changed

    outcome = await item_changes.run(lambda session: idempotency.once(session, key, payload_hash, change, render_item))
    return answered(outcome, status=200, at=BY_ID)


def _columns(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a change with those of the price, which is kept in several columns. Raises Invalid."""
    columns = {name: value for name, value in given.items() if name != "price"}
    if "price" in given:
        price: ListPrice | None = given["price"]
        columns |= NO_LIST_PRICE if price is None else price.columns
    return columns


def _require_own(reach: Reach, owned: Item | NewItem, operation: str, venue_before: str | None) -> None:
    """Raise NotAllowed unless an item belongs to who may use the operation on it.

    Nobody puts an item into a venue that is not theirs, where it would be offered, or takes one out of such a venue.
    """
    is_moved = owned.venue != venue_before and not reach.is_everything
    may_move = owned.venue in reach.venues and venue_before in (None, *reach.venues)
    if (is_moved and not may_move) or not reach.covers(venue=owned.venue, provider=owned.provider):
        raise NotAllowed(operation)


def sku_of(request: AnyRequest) -> str:
    """Return the sku in the path of a request. It may contain anything but NUL, slashes as well. Raises Invalid."""
    sku = paths.rest(cast(Mapping[str, Any], request.scope))
    if "\0" in sku:
        raise Invalid("sku", "it contains a NUL character, which no sku has")
    return sku


ROUTES: Sequence[HTTPRouteHandler] = (
    create_item,
    list_items,
    get_item,
    get_item_by_id,
    change_item,
    change_item_by_id,
)
