"""Prices: amounts of money in a currency, and the list price of an item. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from functools import cache
from typing import Self

from iso4217 import Currency

from domain.calendars.periods import Period
from domain.calendars.zones import wall_time, zone_of
from domain.items import Item
from domain.runtime.errors import Invalid

#: A larger amount is mistyped, in whatever currency. It has fewer digits than the column.
MAX_AMOUNT = Decimal(10) ** 13

_DIGITS = re.compile(r"-?[0-9]{1,30}([.][0-9]{1,30})?")


class Source(StrEnum):
    """Where a price is from: the pricing service, or the list price of the item."""

    QUOTED = "quoted"
    DEFAULT = "default"


class Per(StrEnum):
    """For what a list price is: the whole reservation, or each unit, for its time, for an hour or for a night."""

    RESERVATION = "reservation"
    UNIT = "unit"
    HOUR = "hour"
    NIGHT = "night"


@cache
def digits_of(currency: str) -> int:
    """Return how many digits amounts in a currency have after the point, by ISO 4217. Raises Invalid."""
    try:
        digits = Currency(currency).exponent
    except ValueError:
        digits = None
    if digits is None:
        raise Invalid("currency", "it must be the code of a currency by ISO 4217, such as EUR")
    return digits


def amount_of(field: str, text: str, currency: str) -> Decimal:
    """Return an amount that is not negative, with the digits of its currency. Raises Invalid, which names the field."""
    digits = digits_of(currency)
    if not _DIGITS.fullmatch(text):
        raise Invalid(field, 'it must be an amount in decimal digits, such as "12.50"')
    amount = Decimal(text)
    if not 0 <= amount <= MAX_AMOUNT:
        raise Invalid(field, f"it must be from 0 to {MAX_AMOUNT:f}")
    exact = amount.quantize(Decimal(1).scaleb(-digits))
    if exact != amount:
        raise Invalid(field, f"{currency} has {digits} digits after the point")
    return exact


#: What the amounts of a price are called, in columns, on the wire and by the pricing service.
AMOUNTS = ("base_price", "tax_amount", "discount_amount", "total_price")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a booking costs: `total` is to be paid. All amounts are in one currency, and have its digits."""

    base: Decimal
    tax: Decimal
    discount: Decimal
    total: Decimal
    currency: str

    @classmethod
    def of(
        cls,
        *,
        currency: str,
        total_price: str,
        base_price: str | None = None,
        tax_amount: str = "0",
        discount_amount: str = "0",
    ) -> Self:
        """Return the price of these amounts. Without a base price, it is the total. Raises Invalid."""
        return cls(
            base=amount_of("base_price", total_price if base_price is None else base_price, currency),
            tax=amount_of("tax_amount", tax_amount, currency),
            discount=amount_of("discount_amount", discount_amount, currency),
            total=amount_of("total_price", total_price, currency),
            currency=currency,
        )

    @property
    def amounts(self) -> Mapping[str, Decimal]:
        """The amounts by their names, AMOUNTS."""
        return dict(zip(AMOUNTS, (self.base, self.tax, self.discount, self.total), strict=True))


def list_price_columns(amount: str, currency: str, per: Per) -> dict[str, object]:
    """Return the columns of an item that has this list price. Raises Invalid."""
    exact = amount_of("price.amount", amount, currency)
    return {"price_amount": exact, "price_currency": currency, "price_per": per.value}


#: Those of an item that has none.
NO_LIST_PRICE: Mapping[str, object] = {"price_amount": None, "price_currency": None, "price_per": None}


def list_price(item: Item, quantity: int, period: Period | None) -> Price | None:
    """Return what so many units of an item cost for a period by its list price, or None if it has none.

    Raises Invalid if that is no amount any more.
    """
    if item.price_amount is None or item.price_currency is None:
        return None
    units = 1 if item.price_per == Per.RESERVATION else quantity
    total = item.price_amount * units * _times(item, period)
    if total > MAX_AMOUNT:
        raise Invalid("quantity", f"by the list price it would cost more than {MAX_AMOUNT:f} {item.price_currency}")
    zero = Decimal(0).scaleb(-digits_of(item.price_currency))
    total = total.quantize(zero, ROUND_HALF_UP)
    return Price(base=total, tax=zero, discount=zero, total=total, currency=item.price_currency)


def _times(item: Item, period: Period | None) -> int:
    """Return how often the list price is to be paid for each unit: for hours that have begun, and for nights."""
    if period is None or item.time_zone is None:
        return 1
    if item.price_per == Per.HOUR:
        return -(-period.duration // timedelta(hours=1))
    if item.price_per == Per.NIGHT:
        zone = zone_of(item.time_zone)
        return max(1, (wall_time(period.end, zone).date() - wall_time(period.start, zone).date()).days)
    return 1
