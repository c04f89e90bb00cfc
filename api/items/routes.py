"""Items over HTTP."""

from typing import Annotated, Any

from litestar import Request, Response, get, patch, post
from litestar.params import Parameter
from sqlalchemy.orm import Session, sessionmaker

from api.http.decoding import Strict
from api.http.headers import hash_of, key_of
from api.http.responses import answered, problems
from api.reservations.schemas import NO_NUL, ItemChange, ItemPage, ItemView, NewItem, render_item
from domain.idempotency.stored_answers import stored_answers
from domain.items.table import MAX_ID, table

Db = sessionmaker[Session]
Limit = Annotated[int, Parameter(ge=1, le=1_000, description="How many at the most")]


@post("/items", dto=Strict[NewItem], sync_to_thread=True, responses=problems(409, 413, 415), tags=["items"])
def create_item(request: Request[Any, Any, Any], data: NewItem, db: Db) -> Response[ItemView]:
    """Create an item."""
    key = key_of(request, "items.create")

    def create() -> table.Item:
        return table.create(session, sku=data.sku, name=data.name, available_quantity=data.available_quantity)

    with db.begin() as session:
        outcome = stored_answers.once(session, key, hash_of(data), create, render_item)
    return answered(outcome, status=201, at="/items")


@get("/items", sync_to_thread=True, responses=problems(), tags=["items"])
def list_items(db: Db, limit: Limit = 100, cursor: Annotated[int, Parameter(ge=0, le=MAX_ID)] = 0) -> ItemPage:
    """List items in order of id."""
    with db.begin() as session:
        found = table.find(session, after=cursor, limit=limit)
    return ItemPage([ItemView.of(item) for item in found], str(found[-1].id) if len(found) == limit else None)


@get("/items/{item_id:str}", sync_to_thread=True, responses=problems(404), tags=["items"])
def get_item(item_id: Annotated[str, Parameter(pattern=NO_NUL, description="Its id, or its sku")], db: Db) -> ItemView:
    """Get an item by its id or its sku."""
    with db.begin() as session:
        return ItemView.of(table.get(session, item_id))


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
    """Rename an item, or add units to its stock or take some away."""
    key = key_of(request, "items.change")

    def change() -> table.Item:
        return table.amend(session, item_id, name=data.name, adjust_quantity_by=data.adjust_quantity_by)

    with db.begin() as session:
        outcome = stored_answers.once(session, key, hash_of(item_id, data), change, render_item)
    return answered(outcome, status=200, at="/items")
