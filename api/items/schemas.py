"""The shapes of items, and of the requests that create and change them."""

from datetime import datetime
from typing import Annotated, Self

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.http.fields import ItemId, Sku
from domain.items import MAX_QUANTITY, Item

Name = Annotated[str, Meta(min_length=1, max_length=255, examples=["Double room, sea view"])]
Stock = Annotated[int, Meta(ge=0, le=MAX_QUANTITY, examples=[100])]


class NewItem(msgspec.Struct, forbid_unknown_fields=True):
    """An item to create, with its units in stock."""

    sku: Sku
    name: Name
    available_quantity: Stock = 0


class ItemChange(msgspec.Struct, forbid_unknown_fields=True):
    """A new name, and by how many units to change the stock: a negative `adjust_quantity_by` takes units away.

    At least one of the two must be given.
    """

    name: Name | UnsetType = UNSET
    adjust_quantity_by: Annotated[int, Meta(ge=-MAX_QUANTITY, le=MAX_QUANTITY, examples=[10])] | UnsetType = UNSET


class ItemView(msgspec.Struct):
    """An item. `stock_quantity` counts all of its units, `available_quantity` those that can be reserved now."""

    id: ItemId
    sku: Sku
    name: Name
    available_quantity: Stock
    stock_quantity: Stock
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, item: Item) -> Self:
        return cls(
            id=item.id,
            sku=item.sku,
            name=item.name,
            available_quantity=item.available_quantity,
            stock_quantity=item.stock_quantity,
            created_at=item.created_at,
            updated_at=item.updated_at,
        )


class ItemPage(msgspec.Struct):
    """Items in order of id. If there is a `next_cursor`, there may be more: send it back as `cursor`."""

    items: list[ItemView]
    next_cursor: str | None


def render_item(item: Item) -> str:
    """Return an item as JSON."""
    return msgspec.json.encode(ItemView.of(item)).decode()
