"""Items over HTTP."""

from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Request, Response, get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session, sessionmaker

from api.http.decoding import NO_NUL, Strict
from api.http.headers import hash_of, key_of
from api.http.responses import answered, problems
from api.items.schemas import ItemChange, ItemPage, ItemView, NewItem, render_item
from domain import idempotency, items
from domain.items import MAX_ID, Item

Db = sessionmaker[Session]
Limit = Annotated[int, Parameter(ge=1, le=1_000, description="Maximum number of items")]


@post("/items", dto=Strict[NewItem], sync_to_thread=True, responses=problems(409, 413, 415), tags=["items"])
def create_item(request: Request[Any, Any, Any], data: NewItem, db: Db) -> Response[ItemView]:
    """Create an item."""
    key = key_of(request, "items.create")

    def create() -> Item:
        return items.create(session, sku=data.sku, name=data.name, available_quantity=data.available_quantity)

    with db.begin() as session:
        outcome = idempotency.once(session, key, hash_of(data), create, render_item)
    return answered(outcome, status=201, at="/items")


@get("/items", sync_to_thread=True, responses=problems(), tags=["items"])
def list_items(db: Db, limit: Limit = 100, cursor: Annotated[int, Parameter(ge=0, le=MAX_ID)] = 0) -> ItemPage:
    """List items in order of id."""
    with db.begin() as session:
        found = items.find(session, after=cursor, limit=limit)
    return ItemPage([ItemView.of(item) for item in found], str(found[-1].id) if len(found) == limit else None)


@get("/items/{item_id:str}", sync_to_thread=True, responses=problems(404), tags=["items"])
def get_item(item_id: Annotated[str, Parameter(pattern=NO_NUL, description="Its id or its sku")], db: Db) -> ItemView:
    """Get an item by its id or its sku."""
    with db.begin() as session:
        return ItemView.of(items.get(session, item_id))


@patch(
    "/items/{item_id:str}",
    dto=Strict[ItemChange],
    sync_to_thread=True,
    responses=problems(404, 409, 413, 415),
    tags=["items"],
)
def change_item(
    request: Request[Any, Any, Any],
    item_id: Annotated[int, Parameter(ge=1, le=MAX_ID)],
    data: ItemChange,
    db: Db,
) -> Response[ItemView]:
    """Rename an item, or change its stock by a number of units."""
    key = key_of(request, "items.change")

    def change() -> Item:
        return items.amend(session, item_id, name=data.name, adjust_quantity_by=data.adjust_quantity_by)

    with db.begin() as session:
        outcome = idempotency.once(session, key, hash_of(item_id, data), change, render_item)
    return answered(outcome, status=200, at="/items")


ROUTES: Sequence[HTTPRouteHandler] = (create_item, list_items, get_item, change_item)
