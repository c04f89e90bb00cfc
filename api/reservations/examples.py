"""An example of each operation on reservations, for the OpenAPI document."""

from collections.abc import Mapping
from datetime import timedelta

from msgspec import Raw
from msgspec.structs import replace

from api.http.fields import ITEM_ID, RESERVATION_ID, SKU
from api.http.headers import ETAG, KEY, LOCATION, REPLAYED
from api.http.openapi import CHANGED, MADE, Shown
from api.http.preconditions import IF_MATCH
from api.reservations.guests import GuestKept, GuestSearch, GuestSearchPage
from api.reservations.people import GuestDetails
from api.reservations.schemas import (
    Cancellation,
    CheckIn,
    Completion,
    Confirmation,
    Guest,
    LineView,
    LongerHold,
    NewGuest,
    NewReservation,
    NewTime,
    NoShow,
    Rejection,
    ReservationChange,
    ReservationPage,
    ReservationView,
    Versioned,
)
from domain.reservations.lifecycle import Status

HOLD = ReservationView(
    id=RESERVATION_ID,
    item_id=ITEM_ID,
    sku=SKU,
    quantity=2,
    lines=[LineView(ITEM_ID, SKU, 2)],
    status=Status.PENDING,
    version=1,
    start=None,
    end=None,
    expires_at=MADE + timedelta(minutes=15),
    guest=Guest("guest-42"),
    source="api",
    note="Late arrival",
    metadata=Raw(b'{"cart": "c-7"}'),
    cancellation_reason=None,
    created_at=MADE,
    updated_at=MADE,
    confirmed_at=None,
    checked_in_at=None,
    completed_at=None,
    cancelled_at=None,
    rejected_at=None,
)
_GUEST = GuestDetails(
    name="Zoë Ångström",
    email="zoe@example.com",
    telephone="+351 21 000 00 00",
    special_requests="A quiet room, please",
)
_NEW_GUEST = NewGuest(id="guest-42", name=_GUEST.name, email=_GUEST.email)
_NEW_HOLD = NewReservation(
    sku=HOLD.sku, quantity=HOLD.quantity, guest=_NEW_GUEST, note=HOLD.note, metadata=HOLD.metadata
)
_CONFIRMED = replace(HOLD, status=Status.CONFIRMED, version=2, updated_at=CHANGED, confirmed_at=CHANGED)
_REJECTED = replace(
    HOLD,
    status=Status.REJECTED,
    version=2,
    updated_at=CHANGED,
    cancellation_reason="The room is being painted",
    rejected_at=CHANGED,
)
_CHECKED_IN = replace(_CONFIRMED, status=Status.CHECKED_IN, version=3, checked_in_at=CHANGED)
_COMPLETED = replace(_CHECKED_IN, status=Status.COMPLETED, version=4, completed_at=CHANGED)
_EXTENDED = replace(HOLD, version=2, updated_at=CHANGED, expires_at=CHANGED + timedelta(minutes=15))
_SMALLER = replace(HOLD, version=2, updated_at=CHANGED, quantity=1, lines=[LineView(ITEM_ID, SKU, 1)])
_NOTED = replace(HOLD, version=2, updated_at=CHANGED, note="Arrives at midnight")
_CANCELLED = replace(
    HOLD,
    status=Status.CANCELLED,
    version=2,
    updated_at=CHANGED,
    cancellation_reason="The guest's plans changed",
    cancelled_at=CHANGED,
)


def _change(body: Versioned | ReservationChange, answer: ReservationView) -> Shown:
    return Shown(body=body, answer=answer, reads=(KEY, IF_MATCH), writes=ETAG | REPLAYED)


OPERATIONS: Mapping[str, Shown] = {
    "make_reservation": Shown(body=_NEW_HOLD, answer=HOLD, reads=(KEY,), writes=LOCATION | ETAG | REPLAYED),
    "list_reservations": Shown(answer=ReservationPage([HOLD], None)),
    "get_reservation": Shown(answer=HOLD, writes=ETAG),
    "confirm_reservation": _change(Confirmation(expected_version=1), _CONFIRMED),
    "reject_reservation": _change(Rejection(reason=_REJECTED.cancellation_reason), _REJECTED),
    "cancel_reservation": _change(Cancellation(reason=_CANCELLED.cancellation_reason), _CANCELLED),
    "check_in_reservation": _change(CheckIn(expected_version=2), _CHECKED_IN),
    "complete_reservation": _change(Completion(expected_version=3), _COMPLETED),
    "note_no_show": _change(
        NoShow(reason="Waited until midnight"), replace(_CONFIRMED, status=Status.NO_SHOW, version=3)
    ),
    "reschedule_reservation": _change(NewTime(quantity=1, expected_version=1), _SMALLER),
    "extend_reservation": _change(LongerHold(ttl_seconds=900, expected_version=1), _EXTENDED),
    "change_reservation": _change(ReservationChange(note=_NOTED.note), _NOTED),
    "get_guest": Shown(answer=_GUEST),
    "change_guest": Shown(body=_GUEST, answer=GuestKept(RESERVATION_ID), reads=(KEY,), writes=REPLAYED),
    "search_guests": Shown(body=GuestSearch(email=_GUEST.email), answer=GuestSearchPage([RESERVATION_ID], None, True)),
}
