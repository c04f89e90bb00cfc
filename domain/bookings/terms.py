"""The terms of a booking: when it is, for how many, and its price. They are kept while a change is asked about."""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from domain.bookings import saga
from domain.bookings.prices import AMOUNTS, Price, Source, list_price
from domain.bookings.table import Booking, State
from domain.calendars.periods import Period
from domain.items import Item

#: The former terms of a booking that is on its way back to them: there are none before those.
GOING_BACK = "{}"


@dataclass(frozen=True, slots=True)
class Terms:
    """The period of a booking, the people it is for, and its price."""

    period: Period
    quantity: int
    price: Price | None
    price_source: Source | None

    def written(self) -> str:
        """Return them as JSON."""
        price = self.price and [*map(str, self.price.amounts.values()), self.price.currency]
        period = [self.period.start.isoformat(), self.period.end.isoformat()]
        return json.dumps({"period": period, "quantity": self.quantity, "price": price, "source": self.price_source})

    @classmethod
    def read(cls, written: str) -> Self:
        """Return the terms that were written so."""
        given: dict[str, Any] = json.loads(written)
        *amounts, currency = given["price"] or [None]
        return cls(
            period=Period(*map(datetime.fromisoformat, given["period"])),
            quantity=given["quantity"],
            price=Price.of(currency=currency, **dict(zip(AMOUNTS, amounts, strict=True))) if amounts else None,
            price_source=given["source"] and Source(given["source"]),
        )


def renew(booking: Booking, former: Terms, calendar: Item, period: Period, quantity: int, version: int) -> Booking:
    """Return a booking that has another time or party since this version. It has the list price until it is quoted."""
    if booking.former_terms == GOING_BACK:
        return replace(saga.renewed(booking), pricing=booking.pricing, terms_version=version)
    price = list_price(calendar, quantity, period)
    kept = booking.former_terms or former.written()
    return replace(
        saga.renewed(booking),
        price=price,
        price_source=Source.DEFAULT if price else None,
        terms_version=version,
        former_terms=kept,
    )


def on_the_way_back(booking: Booking) -> Booking:
    """Return a booking that gets its former terms again, with their price."""
    former = former_terms(booking)
    assert former, "there are some"
    pricing = State.DONE if former.price_source is Source.QUOTED else booking.pricing and State.REFUSED
    return replace(
        booking,
        price=former.price,
        price_source=former.price_source,
        pricing=pricing,
        former_terms=GOING_BACK,
    )


def former_terms(booking: Booking) -> Terms | None:
    """Return the terms that services had agreed to before the change that they are asked about, if there are any."""
    written = booking.former_terms
    return None if written in (None, GOING_BACK) else Terms.read(str(written))
