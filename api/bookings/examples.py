"""An example of each operation on bookings, for the OpenAPI document."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from litestar.openapi.spec import OpenAPIType, Parameter, Schema
from msgspec.structs import asdict, replace

from api.bookings.requests import AvailabilityCheck, BookingCancellation, BookingStatus, BookingUpdate, NewBooking
from api.bookings.schemas import Alternative, Availability, BookingChangeView, BookingHistory, BookingPage, BookingView
from api.http.fields import RESERVATION_ID
from api.http.headers import ETAG, KEY, LOCATION, PREFERENCE_APPLIED, REPLAYED
from api.http.openapi import CHANGED, MADE, Shown
from api.http.preconditions import IF_MATCH
from api.reservations.metadata import NONE
from domain.bookings import Source
from domain.reservations.lifecycle import Status

PREFER = Parameter(
    name="Prefer",
    param_in="header",
    description="`wait=10`: answer when the booking has left PENDING, or after so many seconds, at most 30 (RFC 7240)",
    schema=Schema(type=OpenAPIType.STRING),
)

_START = datetime(2030, 5, 3, 17, 30, tzinfo=UTC)
_NEW = NewBooking(
    venue_id="ristorante-vela",
    booking_date=date(2030, 5, 3),
    booking_time="19:30",
    duration_minutes=120,
    party_size=4,
    guest_id="guest-42",
    guest_name="Zoë Ångström",
    guest_email="zoe@example.com",
    special_requests="By the window, please",
)
_PENDING = BookingView(
    id=RESERVATION_ID,
    booking_reference="BR-20300503-A3B9C2",
    guest_id="guest-42",
    venue_id="ristorante-vela",
    venue_type="restaurant",
    venue_name="Ristorante Vela",
    booking_date=date(2030, 5, 3),
    booking_time="19:30:00",
    booking_time_moved_from=None,
    duration_minutes=120,
    end_time="21:30:00",
    start=_START,
    end=_START + timedelta(hours=2),
    time_zone="Europe/Rome",
    party_size=4,
    status=Status.PENDING,
    version=1,
    base_price="120.00",
    tax_amount="0.00",
    discount_amount="0.00",
    total_price="120.00",
    currency="EUR",
    price_source=Source.DEFAULT,
    price_guaranteed_until=MADE + timedelta(minutes=15),
    payment_intent_id=None,
    payment_status="NONE",
    inventory_reservation_id=None,
    inventory_item_id="VELA-TABLES",
    source="api",
    metadata=NONE,
    cancellation_reason=None,
    cancelled_by=None,
    created_at=MADE,
    updated_at=MADE,
    confirmed_at=None,
    cancelled_at=None,
    checked_in_at=None,
    completed_at=None,
    expires_at=MADE + timedelta(minutes=15),
)
_CONFIRMED = replace(
    _PENDING,
    status=Status.CONFIRMED,
    version=2,
    payment_intent_id="pi-4711",
    payment_status="PAID",
    inventory_reservation_id="inv-831",
    price_guaranteed_until=None,
    updated_at=CHANGED,
    confirmed_at=CHANGED,
)
_WITH_GUEST = replace(
    _CONFIRMED,
    guest_name=_NEW.guest_name,
    guest_email=_NEW.guest_email,
    guest_phone=None,
    special_requests=_NEW.special_requests,
    internal_notes="Regular guest",
)
_CHECKED_IN = replace(_CONFIRMED, status=Status.CHECKED_IN, version=3, checked_in_at=CHANGED)
_CANCELLED = replace(
    _CONFIRMED,
    status=Status.CANCELLED,
    version=3,
    cancellation_reason="The guest's plans changed",
    cancelled_by="user:guest-42",
    cancelled_at=CHANGED,
    payment_status="REFUND_PENDING",
)
_HISTORY = BookingHistory(
    RESERVATION_ID,
    [
        BookingChangeView(None, Status.PENDING, "user:guest-42", None, MADE),
        BookingChangeView(Status.PENDING, Status.CONFIRMED, "system", None, CHANGED),
    ],
)
_CHECK = {"venue_id", "booking_date", "booking_time", "duration_minutes", "party_size"}
_FREE = Availability(
    available=False,
    available_capacity=2,
    start=_START,
    end=_START + timedelta(hours=2),
    booking_time_moved_from=None,
    total_price="120.00",
    currency="EUR",
    price_source=Source.DEFAULT,
    alternatives=[
        Alternative(
            "VELA-TABLES",
            date(2030, 5, 3),
            "20:30:00",
            _START + timedelta(hours=1),
            _START + timedelta(hours=3),
            4,
        )
    ],
)

OPERATIONS: Mapping[str, Shown] = {
    "make_booking": Shown(
        body=_NEW,
        answer=_PENDING,
        reads=(KEY, PREFER),
        writes=LOCATION | ETAG | REPLAYED | PREFERENCE_APPLIED,
    ),
    "get_booking": Shown(answer=_WITH_GUEST, writes=ETAG),
    "get_booking_by_reference": Shown(answer=_WITH_GUEST, writes=ETAG),
    "get_booking_history": Shown(answer=_HISTORY),
    "update_booking": Shown(
        body=BookingUpdate(party_size=3, expected_version=2),
        answer=replace(_CONFIRMED, party_size=3, version=3, total_price="90.00", base_price="90.00"),
        reads=(KEY, IF_MATCH),
        writes=ETAG | REPLAYED,
    ),
    "cancel_booking": Shown(
        body=BookingCancellation(reason=_CANCELLED.cancellation_reason),
        answer=_CANCELLED,
        reads=(KEY, IF_MATCH),
        writes=ETAG | REPLAYED,
    ),
    "set_booking_status": Shown(
        body=BookingStatus(status=Status.CHECKED_IN, expected_version=2),
        answer=_CHECKED_IN,
        reads=(KEY, IF_MATCH),
        writes=ETAG | REPLAYED,
    ),
    "list_guest_bookings": Shown(answer=BookingPage([_CONFIRMED], None)),
    "list_venue_bookings": Shown(answer=BookingPage([_CONFIRMED], None)),
    "check_availability": Shown(
        body=AvailabilityCheck(**{name: value for name, value in asdict(_NEW).items() if name in _CHECK}),
        answer=_FREE,
    ),
}
