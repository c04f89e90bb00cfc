"""Bookings over HTTP: making and reading them, by the booking contract. They are changed in `changes`.

Source: 1-booking-lifecycle.md, "API Contracts".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session

from api.auth.authentication import reach_in
from api.bookings import changes, lists, updates
from api.bookings.fields import GUEST_FIELDS, PATH, named_by_contract, time_of
from api.bookings.keys import key_with
from api.bookings.reading import booking_of, shown
from api.bookings.requests import NewBooking
from api.bookings.schemas import BookingHistory, BookingView
from api.bookings.times import Placed, placed
from api.bookings.venues import UNCLEAR, Venues
from api.bookings.waiting import Waiting, wait_of
from api.bulkheads import ClientBulkhead
from api.http.decoding import NO_NUL, Strict
from api.http.headers import principal_of, trace_of
from api.http.payloads import hash_of
from api.http.preconditions import etag_of
from api.http.responses import answered, changing, reading
from api.reservations.guests import NOT_STORED
from api.reservations.routes import Submission, submitted
from domain import bookings, reservations
from domain.access import Reach
from domain.calendars.zones import zone_of
from domain.idempotency import Answered
from domain.items import Item
from domain.reservations import Claim, Reservation, Reserve, history
from domain.reservations.ownership import made_for
from domain.runtime.errors import (
    CalendarChanged,
    GuestUnreadable,
    Invalid,
    NoKeys,
    NotAllowed,
    NotFree,
    OutsideOpeningHours,
    PersonalDataUnavailable,
    Refusal,
    UnknownItem,
    UnknownReference,
    UnknownReservation,
    UnknownVenue,
)

AnyRequest = Request[Any, Any, Any]

#: No item has this id.
NO_CALENDAR = 0

Scope = Mapping[str, Any]


@post(
    PATH,
    dto=Strict[NewBooking],
    responses=changing(UnknownVenue, NotFree, OutsideOpeningHours, CalendarChanged, NoKeys, PersonalDataUnavailable),
    tags=["bookings"],
    operation="bookings.create",
)
async def make_booking(request: AnyRequest, data: NewBooking, reads: ClientBulkhead) -> Response[BookingView]:
    """Make a booking. It is PENDING until inventory, price and payment are settled; then it is CONFIRMED, or over."""
    state, scope, body = request.app.state, request.scope, await request.body()
    venues: Venues = state.venues

    async def make(calendar: Item) -> Answered:
        assert calendar.time_zone, "it is a calendar"
        return await submit(state, scope, submission_of(state, scope, data, body, calendar.id, calendar.time_zone))

    try:
        outcome = await venues.use(reads, data.venue_id, data.inventory_item_id, make)
    except (UnknownVenue, Invalid) as refused:
        if isinstance(refused, Invalid) and refused.field != UNCLEAR:
            raise
        outcome = await _replayed(state, scope, data, body, refused)
    response = answered(outcome, status=201, at=PATH)
    wait = wait_of(request.scope)
    return await _waited(request, reads, response, wait) if wait else response


async def _waited(
    request: AnyRequest, reads: ClientBulkhead, response: Response[BookingView], wait: int
) -> Response[BookingView]:
    """Return the response with the booking as it is when it is settled, or after so many seconds."""
    made = UUID(response.headers["Location"].rpartition("/")[2])
    waiting: Waiting = request.app.state.waiting
    if not await waiting.wait(made, wait, principal_of(request.scope).client_id):
        return response

    def read(session: Session) -> Answered:
        one = reservations.get(session, made)
        return Answered(BookingView.of(one, booking_of(session, one)).rendered())

    settled = answered(await reads.run(read), status=201, at=PATH)
    settled.headers["Preference-Applied"] = f"wait={wait}"
    if "Idempotency-Replayed" in response.headers:
        settled.headers["Idempotency-Replayed"] = "true"
    return settled


async def submit(state: State, scope: Scope, submission: Submission) -> Answered:
    """Return the answer to a request for a booking. Raises Invalid by the names of this contract."""
    with named_by_contract():
        return await submitted(state, scope, submission)


async def _replayed(state: State, scope: Scope, data: NewBooking, body: bytes, refused: Refusal) -> Answered:
    """Return what was answered to this request before its venue was changed. Raises `refused` if nothing was."""
    submission = submission_of(state, scope, data, body, NO_CALENDAR, "UTC")
    if submission.reserve.key is None:
        raise refused
    try:
        return await submitted(state, scope, submission)
    except UnknownItem:
        raise refused from None


def submission_of(
    state: State, scope: Scope, data: NewBooking, body: bytes, calendar_id: int, time_zone: str
) -> Submission:
    """Return what a request for a booking of this calendar wants. `body` is what `data` was decoded from."""
    person = data.person
    with named_by_contract():
        when = placed(data.booking_date, time_of(data.booking_time), data.duration_minutes, zone_of(time_zone))
    key, principal = key_with(data.idempotency_key, scope, "bookings.create"), principal_of(scope)
    reach = reach_in(scope, "bookings.create")
    guest_id, within = made_for(data.guest_id, reach, "bookings.create")
    if data.internal_notes is not None and not reach.covers(venue=data.venue_id, provider=None):
        raise NotAllowed("bookings.create")
    metadata = bytes(data.metadata).decode()
    wanted = Reserve(
        lines=(Claim(calendar_id, data.party_size, when.period),),
        hold_for=state.hold_lifetime,
        key=key,
        payload_hash=hash_of(body) if key and person is None else "",
        guest_id=guest_id,
        within=within,
        metadata=None if metadata == "null" else metadata,
        source=data.source,
        client_id=principal.client_id,
        changed_by=principal.name,
        render=_rendering(when),
        headers=trace_of(scope),
        booking=bookings.NewBooking(
            venue=data.venue_id,
            time_zone=time_zone,
            venue_type=data.venue_type,
            venue_name=data.venue_name,
            internal_notes=data.internal_notes,
        ),
    )
    return Submission(wanted, person, body, tuple(GUEST_FIELDS.values()))


def _rendering(when: Placed) -> Callable[[Reservation], str]:
    """Return what renders the answer to the request for a booking at this time."""

    def render(made: Reservation) -> str:
        assert made.booking, "it was made as a booking"
        return BookingView.of(made, made.booking, moved_from=when.moved_from).rendered()

    return render


@get(
    f"{PATH}/{{booking_id:str}}",
    responses=reading(UnknownReservation, NoKeys, GuestUnreadable, PersonalDataUnavailable),
    tags=["bookings"],
    operation="bookings.read",
)
async def get_booking(
    request: AnyRequest, booking_id: UUID, reads: ClientBulkhead, reach: Reach
) -> Response[BookingView]:
    """Get a booking, with its guest. Its ETag is its version."""
    view = await shown(request, reads, lambda session: reservations.get(session, booking_id, reach), reach)
    return _private(view)


@get(
    f"{PATH}/reference/{{reference:str}}",
    responses=reading(UnknownReference, NoKeys, GuestUnreadable, PersonalDataUnavailable),
    tags=["bookings"],
    operation="bookings.read",
)
async def get_booking_by_reference(
    request: AnyRequest,
    reference: Annotated[str, Parameter(max_length=100, pattern=NO_NUL)],
    reads: ClientBulkhead,
    reach: Reach,
) -> Response[BookingView]:
    """Get a booking by its reference, with its guest."""
    wanted = reference.strip().upper()
    view = await shown(request, reads, lambda session: reservations.get_booking(session, wanted, reach), reach)
    return _private(view)


def _private(view: BookingView) -> Response[BookingView]:
    """Return a response with personal data, which no cache on the way keeps."""
    return Response(view, headers={"ETag": etag_of(view.version), **NOT_STORED})


@get(
    f"{PATH}/{{booking_id:str}}/history",
    responses=reading(UnknownReservation),
    tags=["bookings"],
    operation="bookings.read",
)
async def get_booking_history(booking_id: UUID, reads: ClientBulkhead, reach: Reach) -> BookingHistory:
    """Get the changes of a booking, the oldest first."""

    def read(session: Session) -> BookingHistory:
        booking_of(session, reservations.get(session, booking_id, reach))
        return BookingHistory.of(booking_id, history.read(session, booking_id))

    return await reads.run(read)


ROUTES: Sequence[HTTPRouteHandler] = (
    make_booking,
    get_booking,
    get_booking_by_reference,
    get_booking_history,
    *changes.ROUTES,
    *updates.ROUTES,
    *lists.ROUTES,
)
