"""An inventory, a pricing and a payment service. They are idempotent, and their books show what they did."""

from collections import OrderedDict
from collections.abc import Collection
from decimal import Decimal
from typing import Literal

import msgspec
from litestar.exceptions import HTTPException

from examples.partners.memory import remember

#: What the pricing service takes for each unit, and the tax within it.
UNIT_PRICE, TAX_RATE = Decimal("30.00"), Decimal("0.10")


class Booking(msgspec.Struct, frozen=True):
    """The fields of a request's payload that the services need."""

    booking_id: str
    sku: str
    quantity: int
    amount: str | None = None
    currency: str | None = None
    inventory_reservation_id: str | None = None
    payment_intent_id: str | None = None


class ServiceRequest(msgspec.Struct, frozen=True):
    event_type: Literal["inventory_hold", "inventory_release", "price_quote", "payment_intent", "payment_refund"]
    payload: Booking


class Entry(msgspec.Struct, omit_defaults=True):
    """What a service did for one booking: how often it was done, and how often undone. More than once is a fault."""

    status: Literal["done", "refused", "undone"]
    name: str | None = None
    amount: str | None = None
    currency: str | None = None
    quantity: int | None = None
    done: int = 0
    undone: int = 0


Response = dict[str, str]


class Service:
    """A repeated idempotency key gets the first answer and changes nothing. Nothing is done after it was undone."""

    #: The event that asks to undo, if there is one, and the member that names what was done.
    undoes: str | None = None
    names: str | None = None

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.books: OrderedDict[str, Entry] = OrderedDict()
        self.repeats = 0
        self._answers: OrderedDict[str, tuple[int, Response]] = OrderedDict()

    def respond(self, key: str, request: ServiceRequest, *, refuse_skus: Collection[str]) -> tuple[int, Response]:
        """Return the status and the body of the answer."""
        if key in self._answers:
            self.repeats += 1
            return self._answers[key]
        answer = self._act(request, refuse_skus)
        remember(self._answers, key, answer)
        return answer

    def _act(self, request: ServiceRequest, refuse_skus: Collection[str]) -> tuple[int, Response]:
        booking = request.payload
        entry = self.books.get(booking.booking_id)
        if request.event_type == self.undoes:
            return self._undo(booking, entry)
        if entry and entry.status == "undone":
            # A request that was delayed on its way must not do what was undone.
            return 409, {"reason": "It was undone before."}
        if booking.sku in refuse_skus:
            if entry is None:
                remember(self.books, booking.booking_id, Entry(status="refused"))
            return 422, {"reason": f"{booking.sku} is refused."}
        return 200, self.do(booking)

    def _undo(self, booking: Booking, entry: Entry | None) -> tuple[int, Response]:
        if entry is None or entry.status == "refused":
            remember(self.books, booking.booking_id, Entry(status="undone"))
            return 404, {"reason": "There is nothing to undo."}
        entry.status = "undone"
        entry.undone += 1
        return 200, {"status": "undone"}

    def do(self, booking: Booking) -> Response:
        """Do what is asked, and return the answer."""
        entry = self.books.setdefault(booking.booking_id, Entry(status="done"))
        # Who names what was done wants it changed, and not done once more.
        is_change = entry.name is not None and entry.name in (
            booking.inventory_reservation_id,
            booking.payment_intent_id,
        )
        entry.done += not is_change
        entry.name = entry.name or f"{type(self).__name__.lower()}-{len(self.books)}"
        entry.amount, entry.currency, entry.quantity = booking.amount, booking.currency, booking.quantity
        return {self.names: entry.name} if self.names else {}


class Inventory(Service):
    """It holds units for bookings."""

    undoes, names = "inventory_release", "inventory_reservation_id"


class Payment(Service):
    """It takes the whole amount at once."""

    undoes, names = "payment_refund", "payment_intent_id"

    def do(self, booking: Booking) -> Response:
        if booking.amount is None:
            raise HTTPException("Nobody knows what to pay.", status_code=400)
        return super().do(booking)


class Pricing(Service):
    """It wants the same for each unit."""

    def do(self, booking: Booking) -> Response:
        base = UNIT_PRICE * booking.quantity
        tax = (base * TAX_RATE).quantize(UNIT_PRICE)
        amounts = {"base_price": base, "tax_amount": tax, "discount_amount": Decimal("0.00"), "total_price": base + tax}
        return {"currency": "EUR", **{name: str(amount) for name, amount in amounts.items()}}
