"""The bookings of a guest or of a venue, and whether a venue is free, over HTTP."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session

from api.bookings.fields import PATH, named_by_contract, time_of
from api.bookings.requests import AvailabilityCheck
from api.bookings.schemas import Availability, BookingPage, BookingView
from api.bookings.times import Placed, placed
from api.bookings.venues import Venues
from api.bulkheads import ClientBulkhead
from api.http.decoding import NO_NUL, Strict
from api.http.paths import segment
from api.http.responses import reading
from api.reservations import cursors
from domain import bookings, calendars, items, reservations
from domain.access import Reach
from domain.bookings import list_price
from domain.calendars.zones import first_moment, zone_of
from domain.items import Item
from domain.reservations import Filter, Reservation, Window
from domain.reservations.lifecycle import Status
from domain.runtime.database import now
from domain.runtime.errors import CalendarChanged, Invalid, NotFree, UnknownVenue

Name = Annotated[str, Parameter(max_length=64, pattern=NO_NUL)]
OfStatus = Annotated[Status | None, Parameter(description="Those in this status")]
Limit = Annotated[int, Parameter(ge=1, le=1_000, description="Maximum number of bookings")]
Cursor = Annotated[str | None, Parameter(max_length=100, pattern=NO_NUL)]


@get(f"{PATH}/guest/{{guest_id:str}}", responses=reading(), tags=["bookings"], operation="bookings.list")
async def list_guest_bookings(
    guest_id: Name,
    lists: ClientBulkhead,
    reach: Reach,
    status: OfStatus = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> BookingPage:
    """List the bookings of a guest, the newest first, without personal data."""
    wanted = Filter(guest_id=segment(guest_id), status=status)
    return await _listed(lists, wanted, reach, limit, cursor)


@get(f"{PATH}/venue/{{venue_id:str}}", responses=reading(UnknownVenue), tags=["bookings"], operation="bookings.list")
async def list_venue_bookings(
    venue_id: Name,
    lists: ClientBulkhead,
    reach: Reach,
    status: OfStatus = None,
    booking_date: Annotated[date | None, Parameter(description="Those that begin or last on this day")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> BookingPage:
    """List the bookings of a venue, without personal data: the newest first or, of a day, in order of their start."""
    venue_id = segment(venue_id)
    wanted = Filter(venue=venue_id, status=status)
    if booking_date is None:
        return await _listed(lists, wanted, reach, limit, cursor)
    after = None if cursor is None else cursors.read_start(cursor, UUID)

    def read(session: Session) -> BookingPage:
        window = _day(session, venue_id, booking_date)
        page = reservations.find_overlapping(session, wanted, window, after=after, limit=limit, reach=reach)
        return BookingPage(
            _views(session, page.reservations),
            None if page.next_after is None else cursors.write_start(*page.next_after),
        )

    return await lists.run(read)


def _day(session: Session, venue: str, day: date) -> Window:
    """Return a day on the clock of a venue. Raises UnknownVenue, Invalid."""
    calendar = next(iter(items.of_venue(session, venue, limit=1)), None)
    if calendar is None or calendar.time_zone is None:
        raise UnknownVenue(venue)
    if not date.min < day < date.max:
        raise Invalid("booking_date", "it is no day on which there can be bookings")
    midnights = [datetime.combine(one, datetime.min.time()) for one in (day, day + timedelta(days=1))]
    start, end = (first_moment(one, zone_of(calendar.time_zone)) for one in midnights)
    return Window(ends_after=start, starts_before=end)


async def _listed(lists: ClientBulkhead, wanted: Filter, reach: Reach, limit: int, cursor: str | None) -> BookingPage:
    before_id = None if cursor is None else cursors.read_id(cursor)

    def read(session: Session) -> BookingPage:
        page = reservations.find(session, wanted, before_id=before_id, limit=limit, reach=reach)
        return BookingPage(
            _views(session, page.reservations), None if page.next_before is None else str(page.next_before)
        )

    return await lists.run(read)


def _views(session: Session, found: Sequence[Reservation]) -> list[BookingView]:
    """Return those reservations that are bookings."""
    known = bookings.read(session, [one.id for one in found if one.booking_reference])
    return [BookingView.of(one, known[one.id]) for one in found if one.id in known]


@post(
    f"{PATH}/availability/check",
    dto=Strict[AvailabilityCheck],
    status_code=200,
    responses=reading(UnknownVenue, CalendarChanged, has_body=True),
    tags=["bookings"],
    only_reads=True,
    operation="bookings.availability",
)
async def check_availability(
    request: Request[Any, Any, Any], data: AvailabilityCheck, reads: ClientBulkhead, availability: ClientBulkhead
) -> Availability:
    """Say whether a venue has room for so many people at a time on its clock, and what that costs by its list price."""
    venues: Venues = request.app.state.venues

    async def check(calendar: Item) -> Availability:
        zone = zone_of(calendar.time_zone or "UTC")
        when = placed(data.booking_date, time_of(data.booking_time), data.duration_minutes, zone)
        return await availability.run(lambda session: _checked(session, calendar, when, data.party_size))

    with named_by_contract():
        return await venues.use(reads, data.venue_id, data.inventory_item_id, check)


def _checked(session: Session, remembered: Item, when: Placed, party_size: int) -> Availability:
    """Return what is free of a calendar at this time on its clock. Raises CalendarChanged, Invalid."""
    (found,) = calendars.snapshot(session, [remembered.id], when.period).availability()
    calendar = found.item
    if (calendar.venue, calendar.time_zone) != (remembered.venue, remembered.time_zone):
        raise CalendarChanged(calendar.sku)
    is_past = when.period.start < now(session)
    free = 0 if is_past else min(step.free for step in found.steps)
    refused = NotFree(calendar.sku, party_size, free, when.period.start, when.period.end)
    explanation = None if free >= party_size or is_past else calendars.explain(session, refused)
    price = list_price(calendar, party_size, when.period)
    return Availability.of(when, free, party_size, price, explanation, calendar.time_zone or "UTC")


ROUTES: Sequence[HTTPRouteHandler] = (list_guest_bookings, list_venue_bookings, check_availability)
