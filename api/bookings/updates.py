"""Updating bookings over HTTP: another time or party, another guest, other notes.

Source: 1-booking-lifecycle.md, "Booking Update Process".
"""

from collections.abc import Sequence
from datetime import time, timedelta
from typing import Any
from uuid import UUID

from litestar import Request, Response, put
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET
from sqlalchemy.orm import Session

from api.bookings.fields import GUEST_FIELDS, PATH, named_by_contract, time_of
from api.bookings.keys import key_with
from api.bookings.reading import booking_of
from api.bookings.requests import BookingUpdate
from api.bookings.schemas import BookingView
from api.bookings.times import Placed, placed, shown
from api.bulkheads import ClientBulkhead
from api.explanations import explained
from api.http.decoding import Strict
from api.http.headers import principal_of, trace_of
from api.http.payloads import hash_of, private_hash_of
from api.http.preconditions import precondition_of
from api.http.responses import answered, changing
from api.personal_data import personal_data_of
from api.reservations.guests import keep_guest
from domain import bookings, idempotency, reservations
from domain.access import Reach
from domain.bookings import Booking
from domain.calendars import Period
from domain.calendars.zones import zone_of
from domain.idempotency import Answered
from domain.outbox import Routes
from domain.privacy import KeyService, SealedGuest, seal
from domain.reservations import Reschedule, Reservation
from domain.runtime.database import now
from domain.runtime.errors import (
    GuestForgotten,
    HoldExpired,
    Invalid,
    NoKeys,
    NotAllowed,
    NotFree,
    OutsideOpeningHours,
    PersonalDataUnavailable,
    Refusal,
    StalePrecondition,
    StaleVersion,
    UnknownReservation,
    WrongStatus,
)

AnyRequest = Request[Any, Any, Any]


@put(
    f"{PATH}/{{booking_id:str}}",
    dto=Strict[BookingUpdate],
    status_code=200,
    responses=changing(
        UnknownReservation,
        WrongStatus,
        HoldExpired,
        NotFree,
        OutsideOpeningHours,
        StaleVersion,
        StalePrecondition,
        GuestForgotten,
        NoKeys,
        PersonalDataUnavailable,
    ),
    tags=["bookings"],
    operation="bookings.update",
)
async def update_booking(
    request: AnyRequest, booking_id: UUID, item_changes: ClientBulkhead, routes: Routes, data: BookingUpdate
) -> Response[BookingView]:
    """Change a booking. Another time or party has to be free, and its price is asked anew."""
    if data.expected_version is None and "if-match" not in request.headers:
        raise Invalid("expected_version", "give it, or If-Match: nobody changes what they have not seen")
    sealed, payload_hash = await _sealed(request, booking_id, data)
    update = _Update(request, booking_id, data, sealed, routes)
    key = key_with(data.idempotency_key, request.scope, "bookings.update")

    def act(session: Session) -> Answered | Refusal:
        return idempotency.once(session, key, payload_hash, update.change, update.rendered(session))

    explanations, principal = request.app.state.explanations, principal_of(request.scope)
    with named_by_contract():
        outcome = await explained(item_changes.run(act), explanations, principal, but=booking_id)
    return answered(outcome, status=200, at=PATH)


async def _sealed(request: AnyRequest, booking_id: UUID, data: BookingUpdate) -> tuple[SealedGuest | None, str]:
    """Return the guest that is given, encrypted, and the hash of the request."""
    body, person = await request.body(), data.person
    if person is None:
        return None, hash_of(body, booking_id)

    def encrypt(keys: KeyService) -> tuple[SealedGuest, str]:
        return seal(keys, person), private_hash_of(body, keys, tuple(GUEST_FIELDS.values()), booking_id)

    return await personal_data_of(request.app.state).run(encrypt, principal_of(request.scope))


class _Update:
    """One request to update a booking, which is acted on in a transaction."""

    def __init__(
        self, request: AnyRequest, booking_id: UUID, data: BookingUpdate, sealed: SealedGuest | None, routes: Routes
    ) -> None:
        self._principal = principal_of(request.scope)
        self._headers = trace_of(request.scope)
        self._reach: Reach = request.scope["reach"]  # type: ignore[typeddict-item]
        self._precondition = precondition_of(request)
        self._booking_id = booking_id
        self._data = data
        self._sealed = sealed
        self._routes = routes
        self._moved_from: time | None = None

    def change(self, session: Session) -> Reservation | Refusal:
        """Change the booking. Raises what ends the transaction."""
        one = reservations.get(session, self._booking_id, self._reach)
        booking = booking_of(session, one)
        found = reservations.change(
            session,
            self._booking_id,
            self._wanted(session, one, booking),
            changed_by=self._principal.name,
            precondition=self._precondition,
            expected_version=self._data.expected_version,
            is_repeatable=False,
            headers=self._headers,
            reach=self._reach,
            routes=self._routes,
        )
        if isinstance(found, Reservation):
            self._write_elsewhere(session)
        return found

    def rendered(self, session: Session) -> Any:
        """Return what renders the booking as it is then."""

        def render(one: Reservation) -> str:
            return BookingView.of(one, booking_of(session, one), moved_from=self._moved_from).rendered()

        return render

    def _wanted(self, session: Session, one: Reservation, booking: Booking) -> Reschedule:
        """Return what is to become of a booking. Raises Invalid, NotAllowed."""
        data, has_notes = self._data, self._data.internal_notes is not UNSET
        if has_notes and not self._reach.covers(venue=one.venue, provider=one.provider):
            raise NotAllowed("bookings.update")
        elsewhere = ["guest"] * (self._sealed is not None) + ["internal_notes"] * has_notes
        period = None
        if data.has_time:
            when = self._placed(one, booking)
            period, self._moved_from = when.period, when.moved_from
            if one.period and period.start != one.period.start and period.start < now(session):
                raise Invalid("booking_date", "it is in the past, or its booking_time is")
        wanted = Reschedule(period, data.party_size, elsewhere)
        if wanted == Reschedule(elsewhere=[]):
            raise Invalid("body", "it changes nothing; give what is to be changed")
        return wanted

    def _placed(self, one: Reservation, booking: Booking) -> Placed:
        assert one.period, "it is of a calendar"
        zone, data = zone_of(booking.time_zone), self._data
        if data.duration_minutes and data.booking_date is None and data.booking_time is None:
            # It begins when it does, also where the clock shows that time twice.
            begins = one.period.start
            return Placed(Period(begins, begins + timedelta(minutes=data.duration_minutes)), moved_from=None)
        start = shown(one.period.start, zone)
        return placed(
            data.booking_date or start.date(),
            time_of(data.booking_time) if data.booking_time else start.time(),
            data.duration_minutes or int(one.period.duration.total_seconds()) // 60,
            zone,
        )

    def _write_elsewhere(self, session: Session) -> None:
        """Write what is not kept with the reservation. Raises GuestForgotten."""
        if self._data.internal_notes is not UNSET:
            bookings.note(session, self._booking_id, self._data.internal_notes)
        if self._sealed is None:
            return
        if refused := keep_guest(session, self._booking_id, self._sealed, self._principal):
            raise refused


ROUTES: Sequence[HTTPRouteHandler] = (update_booking,)
