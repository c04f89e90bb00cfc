"""Prices: amounts with the digits of their currency, and list prices for what they are for."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from domain.bookings import Per, amount_of, list_price
from domain.calendars import Period
from domain.items import Item, Kind
from domain.runtime.errors import Invalid

SATURDAY = datetime(2030, 3, 30, 14, 0, tzinfo=UTC)


def a_room(amount: str, currency: str, per: Per) -> Item:
    return Item(
        id=1,
        sku="ROOM",
        name="Room",
        available_quantity=0,
        stock_quantity=0,
        kind=Kind.CALENDAR,
        time_zone="Europe/Berlin",
        price_amount=Decimal(amount),
        price_currency=currency,
        price_per=per.value,
        created_at=SATURDAY,
        updated_at=SATURDAY,
    )


@pytest.mark.parametrize(
    ("per", "hours", "total"),
    [
        (Per.RESERVATION, 20, "25.00"),
        (Per.UNIT, 20, "50.00"),
        (Per.HOUR, 1.5, "100.00"),
        (Per.HOUR, 2, "100.00"),
        # In the second night the clock is put forward: 23 hours are a night all the same.
        (Per.NIGHT, 43, "100.00"),
        (Per.NIGHT, 2, "50.00"),
    ],
)
def test_a_list_price_is_for_what_it_says(per: Per, hours: float, total: str) -> None:
    found = list_price(a_room("25.00", "EUR", per), 2, Period(SATURDAY, SATURDAY + timedelta(hours=hours)))

    assert found and str(found.total) == total


def test_amounts_have_the_digits_of_their_currency() -> None:
    assert [str(amount_of("x", "7", currency)) for currency in ("EUR", "JPY", "BHD")] == ["7.00", "7", "7.000"]
    period = Period(SATURDAY, SATURDAY + timedelta(hours=1))
    found = list_price(a_room("1000.0000", "JPY", Per.UNIT), 3, period)
    assert found and str(found.total) == "3000"


@pytest.mark.parametrize("text", ["", "x", "NaN", "Infinity", "-0.01", "1e30", "0.001", "1_0.0", "٣", "1\n"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        amount_of("amount", text, "EUR")
