"""Bookings: reservations of time for a guest, at a price, with what outside services do for them."""

from domain.bookings.beginning import NewBooking, begin, refuse
from domain.bookings.prices import (
    AMOUNTS,
    NO_LIST_PRICE,
    Per,
    Price,
    Source,
    amount_of,
    digits_of,
    list_price,
    list_price_columns,
)
from domain.bookings.references import new_reference
from domain.bookings.table import READ, Booking, State, bookings, insert_query, note, of_row, read, write

__all__ = [
    "AMOUNTS",
    "NO_LIST_PRICE",
    "READ",
    "Booking",
    "NewBooking",
    "Per",
    "Price",
    "Source",
    "State",
    "amount_of",
    "begin",
    "bookings",
    "digits_of",
    "insert_query",
    "list_price",
    "list_price_columns",
    "new_reference",
    "note",
    "of_row",
    "read",
    "refuse",
    "write",
]
