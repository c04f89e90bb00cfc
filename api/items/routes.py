"""Items over HTTP."""

from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Request, Response, get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session

from api.bulkheads import Bulkhead
from api.http.decoding import NO_NUL, Strict
from api.http.headers import hash_of, key_of
from api.http.responses import answered, problems
from api.items.schemas import ItemChange, ItemPage, ItemView, NewItem, render_item
from domain import idempotency, items
from domain.items import MAX_ID, Item

Limit = Annotated[int, Parameter(ge=1, le=1_000, description="Maximum number of items")]


@post("/items", dto=Strict[NewItem], responses=problems(409, 413, 415), tags=["items"])
async def create_item(request: Request[Any, Any, Any], data: NewItem, changes: Bulkhead) -> Response[ItemView]:
    """Create an item."""
    key = key_of(request, "items.create")

    payload_hash = hash_of(data)

    def create(session: Session) -> Item:
        return items.create(session, sku=data.sku, name=data.name, available_quantity=data.available_quantity)

    outcome = await changes.run(lambda session: idempotency.once(session, key, payload_hash, create, render_item))
    return answered(outcome, status=201, at="/items")


@get("/items", responses=problems(), tags=["items"])
async def list_items(
    lists: Bulkhead, limit: Limit = 100, cursor: Annotated[int, Parameter(ge=0, le=MAX_ID)] = 0
) -> ItemPage:
    """List items in order of id."""

    def act(session: Session) -> ItemPage:
        found = items.find(session, after=cursor, limit=limit)
        return ItemPage([ItemView.of(item) for item in found], str(found[-1].id) if len(found) == limit else None)

    return await lists.run(act)


@get("/items/{item_id:str}", responses=problems(404), tags=["items"])
async def get_item(
    item_id: Annotated[str, Parameter(pattern=NO_NUL, description="Its id or its sku")], reads: Bulkhead
) -> ItemView:
    """Get an item by its id or its sku."""
    return ItemView.of(await reads.run(lambda session: items.get(session, item_id)))


@patch(
    "/items/{item_id:str}",
    dto=Strict[ItemChange],
    responses=problems(404, 409, 413, 415),
    tags=["items"],
)
async def change_item(
    request: Request[Any, Any, Any],
    item_id: Annotated[int, Parameter(ge=1, le=MAX_ID)],
    data: ItemChange,
    item_changes: Bulkhead,
) -> Response[ItemView]:
    """Rename an item, or change its stock by a number of units."""
    key = key_of(request, "items.change")

    payload_hash = hash_of(item_id, data)

    def change(session: Session) -> Item:
        return items.amend(session, item_id, name=data.name, adjust_quantity_by=data.adjust_quantity_by)

    outcome = await item_changes.run(lambda session: idempotency.once(session, key, payload_hash, change, render_item))
    return answered(outcome, status=200, at="/items")


ROUTES: Sequence[HTTPRouteHandler] = (create_item, list_items, get_item, change_item)
