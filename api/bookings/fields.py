"""The fields of bookings, with their bounds, and how this contract calls what has other names elsewhere.

Source: 1-booking-lifecycle.md, "Booking Entity".
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, time
from typing import Annotated

from msgspec import Meta

from api.http.decoding import END
from domain.calendars.periods import MAX_PERIOD
from domain.runtime.errors import Invalid

PATH = "/api/v1/bookings"

#: The longest booking, in minutes.
MAX_MINUTES = int(MAX_PERIOD.total_seconds()) // 60

#: The levels of objects and lists that the metadata of a booking may have.
MAX_METADATA_LEVELS = 8

VenueId = Annotated[str, Meta(min_length=1, max_length=64, examples=["ristorante-vela"])]
VenueType = Annotated[str, Meta(min_length=1, max_length=50, examples=["restaurant"])]
VenueName = Annotated[str, Meta(min_length=1, max_length=255, examples=["Ristorante Vela"])]
BookingDate = Annotated[date, Meta(examples=["2030-05-03"])]
BookingTime = Annotated[
    str,
    Meta(pattern=rf"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?{END}", examples=["19:30"], description="On the venue's clock"),
]
ClockTime = Annotated[str, Meta(examples=["19:30:00"], description="On the venue's clock")]
Minutes = Annotated[int, Meta(ge=1, le=MAX_MINUTES, examples=[120])]
InternalNotes = Annotated[str, Meta(max_length=2_000, examples=["Regular guest"])]
SourceName = Annotated[str, Meta(min_length=1, max_length=50, examples=["website"])]
IdempotencyKey = Annotated[str, Meta(min_length=1, max_length=255, pattern=f"^[ -~]+{END}", examples=["order-7"])]

#: The fields of a guest in this contract, by the names that a person's have elsewhere.
GUEST_FIELDS = {
    "name": "guest_name",
    "email": "guest_email",
    "telephone": "guest_phone",
    "special_requests": "special_requests",
}


#: How a field of the domain is called in this contract.
FIELDS: Mapping[str, str] = {
    "quantity": "party_size",
    "start": "booking_time",
    "end": "duration_minutes",
    "item_id": "inventory_item_id",
    "sku": "inventory_item_id",
}


@contextmanager
def named_by_contract() -> Iterator[None]:
    """Have an Invalid that is raised within name its field as this contract does."""
    try:
        yield
    except Invalid as error:
        raise Invalid(FIELDS.get(error.field, error.field), error.reason) from None


def time_of(written: str) -> time:
    """Return a time that fits the pattern of `booking_time`."""
    return time.fromisoformat(written)
