"""The shapes of items, and of the requests that create and change them."""

from datetime import datetime
from typing import Annotated, Any, Self

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.http.decoding import END
from api.http.fields import ItemId, Sku
from domain import calendars
from domain.bookings import Per, amount_of, list_price_columns
from domain.items import MAX_QUANTITY, Item, Kind
from domain.runtime.errors import Invalid

Name = Annotated[str, Meta(min_length=1, max_length=255, examples=["Double room, sea view"])]
Stock = Annotated[int, Meta(ge=0, le=MAX_QUANTITY, examples=[100])]
Capacity = Annotated[int, Meta(ge=1, le=MAX_QUANTITY, examples=[1])]
TimeZone = Annotated[str, Meta(min_length=1, max_length=64, examples=["Europe/Berlin"])]
Buffer = Annotated[int, Meta(ge=0, le=calendars.MAX_BUFFER_SECONDS, examples=[900])]
Hours = Annotated[
    dict[str, Any],
    Meta(
        description=(
            "From when until when it is open, by the day of the week (`mon` to `sun`), and by date in `exceptions`, in"
            " wall time of its `time_zone`. It is closed on days that are not named. Null: it is always open."
        ),
        examples=[{"mon": ["09:00-12:00", "13:00-17:00"], "exceptions": {"2030-12-24": []}}],
    ),
]
Venue = Annotated[str, Meta(min_length=1, max_length=64, examples=["hotel-seaview"])]
Provider = Annotated[str, Meta(min_length=1, max_length=64, examples=["dr-silva"])]


Amount = Annotated[str, Meta(min_length=1, max_length=20, pattern=f"^[0-9]+([.][0-9]+)?{END}", examples=["25.00"])]
Currency = Annotated[str, Meta(pattern=f"^[A-Z]{{3}}{END}", examples=["EUR"])]


class ListPrice(msgspec.Struct, forbid_unknown_fields=True):
    """What an item costs unless a pricing service says otherwise: a decimal amount in a currency of ISO 4217.

    It is `per` unit (such as a guest at a table), per unit and hour that has begun, per unit and night, or for the
    reservation as a whole.
    """

    amount: Amount
    currency: Currency
    per: Per = Per.UNIT

    @property
    def columns(self) -> dict[str, object]:
        """The columns that it is kept in. Raises Invalid."""
        return list_price_columns(self.amount, self.currency, self.per)

    @classmethod
    def of(cls, item: Item) -> Self | None:
        if item.price_amount is None or item.price_currency is None or item.price_per is None:
            return None
        exact = amount_of("price.amount", str(item.price_amount), item.price_currency)
        return cls(str(exact), item.price_currency, Per(item.price_per))


class NewItem(msgspec.Struct, forbid_unknown_fields=True):
    """An item to create: stock with its units, or a calendar with the units that can be reserved at any moment.

    A calendar needs a `capacity` and a `time_zone`. Between two of its reservations lie the first one's
    `buffer_after_seconds` and the second one's `buffer_before_seconds`. Calendars of the same `venue` are offered as
    alternatives to each other. Bookings have the `price` unless a service says another one. Whoever acts for the
    `venue` or the `provider` may change the item, and sees and changes its reservations.
    """

    sku: Sku
    name: Name
    kind: Kind = Kind.STOCK
    available_quantity: Stock | None = None
    capacity: Capacity | None = None
    time_zone: TimeZone | None = None
    buffer_before_seconds: Buffer | None = None
    buffer_after_seconds: Buffer | None = None
    opening_hours: Hours | None = None
    venue: Venue | None = None
    provider: Provider | None = None
    price: ListPrice | None = None

    @property
    def calendar(self) -> calendars.Settings | None:
        """The settings of the calendar, if it is one. Raises Invalid."""
        if self.kind is Kind.STOCK:
            for name in CALENDAR_FIELDS:
                if getattr(self, name) is not None:
                    raise Invalid(name, "only calendars have it: give kind calendar as well")
            return None
        if self.available_quantity is not None:
            raise Invalid("available_quantity", "a calendar has a capacity instead")
        if self.capacity is None or self.time_zone is None:
            raise Invalid("capacity" if self.capacity is None else "time_zone", "a calendar needs it")
        given = {name: getattr(self, name) for name in CALENDAR_FIELDS}
        return calendars.Settings(**{name: value for name, value in given.items() if value is not None})


#: The fields that only calendars have.
CALENDAR_FIELDS = calendars.Settings._fields


class ItemChange(msgspec.Struct, forbid_unknown_fields=True):
    """The fields to change, as a JSON Merge Patch (RFC 7396). At least one must be given.

    `adjust_quantity_by` says by how many units to change the stock: a negative number takes units away. Stock has none
    of the fields from `capacity` to `opening_hours`. The reservations that a calendar has stay as they are.
    """

    name: Name | UnsetType = UNSET
    adjust_quantity_by: Annotated[int, Meta(ge=-MAX_QUANTITY, le=MAX_QUANTITY, examples=[10])] | UnsetType = UNSET
    capacity: Capacity | UnsetType = UNSET
    time_zone: TimeZone | UnsetType = UNSET
    buffer_before_seconds: Buffer | UnsetType = UNSET
    buffer_after_seconds: Buffer | UnsetType = UNSET
    opening_hours: Hours | UnsetType | None = UNSET
    venue: Venue | UnsetType | None = UNSET
    provider: Provider | UnsetType | None = UNSET
    price: ListPrice | UnsetType | None = UNSET


class ItemView(msgspec.Struct):
    """An item. Of stock, `stock_quantity` counts all units, `available_quantity` those that can be reserved now.

    Of a calendar these are null, and of stock the fields of calendars are.
    """

    id: ItemId
    sku: Sku
    name: Name
    kind: Kind
    available_quantity: Stock | None
    stock_quantity: Stock | None
    capacity: Capacity | None
    time_zone: TimeZone | None
    buffer_before_seconds: Buffer | None
    buffer_after_seconds: Buffer | None
    opening_hours: Hours | None
    venue: Venue | None
    provider: Provider | None
    price: ListPrice | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, item: Item) -> Self:
        is_stock = item.kind == Kind.STOCK
        return cls(
            id=item.id,
            sku=item.sku,
            name=item.name,
            kind=Kind(item.kind),
            available_quantity=item.available_quantity if is_stock else None,
            stock_quantity=item.stock_quantity if is_stock else None,
            capacity=item.capacity,
            time_zone=item.time_zone,
            buffer_before_seconds=item.buffer_before_seconds,
            buffer_after_seconds=item.buffer_after_seconds,
            opening_hours=None if item.opening_hours is None else msgspec.json.decode(item.opening_hours),
            venue=item.venue,
            provider=item.provider,
            price=ListPrice.of(item),
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
