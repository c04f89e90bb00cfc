"""The table of bookings: what a reservation has beside its units when it is made for a guest, at a price."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
    bindparam,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Session

from domain.bookings.prices import AMOUNTS, Price, Source
from domain.runtime.database import is_given, metadata, records
from domain.runtime.encoding import encode
from domain.runtime.pipeline import Query


class State(StrEnum):
    """What is known of a step of a booking. Without a state it was not asked for."""

    ASKED = "asked"
    DONE = "done"
    #: It was done, and the booking was changed since: the service is to be asked again.
    AGAIN = "again"
    REFUSED = "refused"
    #: It may have been done: the last call was not answered, or the booking ended before the next one.
    UNKNOWN = "unknown"
    UNDOING = "undoing"
    UNDONE = "undone"
    #: The service never agreed to undo it. Somebody has to look after it.
    NOT_UNDONE = "not-undone"


_AMOUNT = Numeric(18, 4)

#: One row for each reservation that is a booking.
bookings = Table(
    "bookings",
    metadata,
    Column("reservation_id", Uuid, ForeignKey("reservations.id"), primary_key=True),
    Column("venue_type", String(50)),
    Column("venue_name", String(255), nullable=False),
    # That of its calendar when it was made, in which its date and time are shown.
    Column("time_zone", String(64), nullable=False),
    Column("internal_notes", Text),
    Column("base_price", _AMOUNT),
    Column("tax_amount", _AMOUNT),
    Column("discount_amount", _AMOUNT),
    Column("total_price", _AMOUNT),
    Column("currency", String(3)),
    Column("price_source", String(20)),
    # The states of its steps, and the names that the services have given to what they did.
    Column("inventory", String(20)),
    Column("pricing", String(20)),
    Column("payment", String(20)),
    Column("confirmation", String(20)),
    Column("inventory_reservation_id", String(255)),
    Column("payment_intent_id", String(255)),
    # The version in which its time and its party became what they are.
    Column("terms_version", Integer, nullable=False, server_default="1"),
    # While services are asked about a change: what they had agreed to before, as JSON. `{}` on the way back to that.
    Column("former_terms", Text),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What a booking has beside its reservation: its venue, its price, and what outside services did for it.

    `price` is None until it is known. Its time and party are those of the version `terms_version`. While services are
    asked about a change of these, `former_terms` are what they had agreed to before: empty on the way back to that.
    """

    reservation_id: UUID
    venue_type: str | None
    venue_name: str
    time_zone: str
    internal_notes: str | None
    price: Price | None = None
    price_source: Source | None = None
    inventory: State | None = None
    pricing: State | None = None
    payment: State | None = None
    confirmation: State | None = None
    inventory_reservation_id: str | None = None
    payment_intent_id: str | None = None
    terms_version: int = 1
    former_terms: str | None = None

    def state_of(self, step: str) -> State | None:
        """Return the state of the step of that name."""
        state: State | None = getattr(self, step)
        return state

    def with_state(self, step: str, state: State | None, **changes: Any) -> Self:
        """Return it with another state of a step."""
        values: dict[str, Any] = {step: state, **changes}
        return replace(self, **values)


def insert_query(made: Sequence[Booking]) -> Query:
    """Return the query that writes new bookings."""
    return Query(_INSERT, {"given_bookings": encode([_row(one) for one in made])})


def write(session: Session, changed: Sequence[Booking]) -> None:
    """Write what their steps have changed of bookings. The caller has locked their reservations."""
    if changed:
        session.execute(_UPDATE, {"changed_bookings": encode([_row(one) for one in changed])})


def note(session: Session, reservation_id: UUID, notes: str | None) -> None:
    """Write the internal notes of a booking. The caller has locked its reservation."""
    session.execute(_NOTE, {"of": reservation_id, "notes": notes})


def read(session: Session, ids: Collection[UUID]) -> Mapping[UUID, Booking]:
    """Return the bookings of these reservations, by their ids."""
    return {row.reservation_id: of_row(row) for row in session.execute(READ, {"ids": list(ids)})}


#: Reads bookings, as `read` does.
READ = select(bookings).where(is_given(bookings.c.reservation_id))


def of_row(row: Any) -> Booking:
    """Return the booking of a row that has all columns of the table."""
    values: dict[str, Any] = {name: getattr(row, name) for name in _PLAIN}
    values |= {name: State(state) for name in _STATES if (state := getattr(row, name)) is not None}
    source = None if row.price_source is None else Source(row.price_source)
    return Booking(**values, price=_price(row), price_source=source)


def _price(row: Any) -> Price | None:
    if row.currency is None:
        return None
    return Price.of(currency=row.currency, **{name: str(getattr(row, name)) for name in AMOUNTS})


_STATES = ("inventory", "pricing", "payment", "confirmation")
_PLAIN = (
    "reservation_id",
    "venue_type",
    "venue_name",
    "time_zone",
    "internal_notes",
    "inventory_reservation_id",
    "payment_intent_id",
    "terms_version",
    "former_terms",
)
_COLUMNS = tuple(bookings.c.keys())
_given = records("given_bookings", **{name: bookings.c[name].type for name in _COLUMNS})
_INSERT = insert(bookings).from_select(_COLUMNS, select(*(_given.c[name] for name in _COLUMNS)))
_changed = records("changed_bookings", **{name: bookings.c[name].type for name in _COLUMNS})
_UPDATE = (
    update(bookings)
    .values({name: _changed.c[name] for name in _COLUMNS if name != "reservation_id"})
    .where(bookings.c.reservation_id == _changed.c.reservation_id)
)


_NOTE = (
    update(bookings)
    .values(internal_notes=bindparam("notes", type_=Text))
    .where(bookings.c.reservation_id == bindparam("of", type_=Uuid))
)


def _row(one: Booking) -> Mapping[str, Any]:
    row = {name: getattr(one, name) for name in (*_PLAIN, *_STATES, "price_source")}
    if one.price is not None:
        row |= {**one.price.amounts, "currency": one.price.currency}
    # What is null is left out, because it need not be encoded.
    return {name: value for name, value in row.items() if value is not None}
