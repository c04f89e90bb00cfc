"""An example of each operation on items, for the OpenAPI document."""

from collections.abc import Mapping

from msgspec.structs import replace

from api.http.fields import ITEM_ID, SKU
from api.http.headers import ETAG, KEY, LOCATION, REPLAYED
from api.http.openapi import CHANGED, MADE, Shown
from api.http.preconditions import IF_MATCH
from api.items.schemas import ItemChange, ItemPage, ItemView, NewItem
from domain.items import Kind

ITEM = ItemView(
    id=ITEM_ID,
    sku=SKU,
    name="Double room, sea view",
    kind=Kind.STOCK,
    available_quantity=10,
    stock_quantity=10,
    capacity=None,
    time_zone=None,
    buffer_before_seconds=None,
    buffer_after_seconds=None,
    opening_hours=None,
    venue=None,
    provider=None,
    price=None,
    created_at=MADE,
    updated_at=MADE,
)

GOT = Shown(answer=ITEM, writes=ETAG)
CHANGE = Shown(
    body=ItemChange(adjust_quantity_by=5),
    answer=replace(ITEM, available_quantity=15, stock_quantity=15, updated_at=CHANGED),
    reads=(KEY, IF_MATCH),
    writes=ETAG | REPLAYED,
)

OPERATIONS: Mapping[str, Shown] = {
    "create_item": Shown(
        body=NewItem(sku=ITEM.sku, name=ITEM.name, available_quantity=10),
        answer=ITEM,
        reads=(KEY,),
        writes=LOCATION | ETAG | REPLAYED,
    ),
    "list_items": Shown(answer=ItemPage([ITEM], None)),
    "get_item": GOT,
    "get_item_by_id": GOT,
    "change_item": CHANGE,
    "change_item_by_id": CHANGE,
}
