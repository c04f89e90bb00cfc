"""Reservations over HTTP: making and reading them. They are changed in `changes`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter

from api.auth.authentication import reach_in
from api.bulkheads import ClientBulkhead
from api.explanations import explained
from api.group_commit import GroupCommit
from api.http.decoding import NO_NUL, Strict
from api.http.headers import key_of, principal_of, trace_of
from api.http.payloads import hash_of, private_hash_of
from api.http.queries import TIMESTAMP, timestamp_of
from api.http.responses import answered, changing, reading
from api.personal_data import personal_data_of
from api.reservations import changes, cursors, guests
from api.reservations.schemas import NewReservation, ReservationPage, ReservationView, render_reservation
from domain import reservations
from domain.access import Reach
from domain.idempotency import Answered
from domain.privacy import KeyService, Person, seal
from domain.reservations import Filter, Reserve, Window
from domain.reservations.lifecycle import Status
from domain.reservations.ownership import made_for
from domain.runtime.errors import (
    Invalid,
    NoKeys,
    NotFree,
    OutsideOpeningHours,
    PersonalDataUnavailable,
    SoldOut,
    UnknownItem,
    UnknownReservation,
)


@post(
    "/reservations",
    dto=Strict[NewReservation],
    responses=changing(UnknownItem, SoldOut, NotFree, OutsideOpeningHours, NoKeys, PersonalDataUnavailable),
    tags=["reservations"],
    operation="reservations.make",
)
async def make_reservation(request: Request[Any, Any, Any], data: NewReservation) -> Response[ReservationView]:
    """Hold units of an item, or of several, until the hold is confirmed or expires. Calendars are held for a period."""
    # Read from the state of the application: to inject it would cost much of the time of a request.
    hold_lifetime: timedelta = request.app.state.hold_lifetime
    wanted = submission_of(request.scope, data, hold_lifetime, await request.body())
    outcome = await submitted(request.app.state, request.scope, wanted)
    return answered(outcome, status=201, at="/reservations")


class Submission(NamedTuple):
    """What a request for a reservation wants, and who its guest is, which is not encrypted yet.

    `private` is the member of the body that has personal data, or those that do.
    """

    reserve: Reserve
    person: Person | None
    body: bytes
    private: str | Sequence[str] = "guest"


async def submitted(state: State, scope: Mapping[str, Any], submission: Submission) -> Answered:
    """Return the answer to a request for a reservation. If time is not free, raise that with an explanation."""
    group_commit: GroupCommit = state.group_commit
    wanted, person, *_ = submission
    if person is not None:
        seal_guest = partial(_with_guest, submission=submission, person=person)
        wanted = await personal_data_of(state).run(seal_guest, principal_of(scope))
    outcome = group_commit.submit(wanted)
    if wanted.period is None:
        return await outcome
    return await explained(outcome, state.explanations, principal_of(scope), is_whole=len(wanted.lines) == 1)


def _with_guest(keys: KeyService, submission: Submission, person: Person) -> Reserve:
    """Return what is wanted with its guest, who is encrypted."""
    wanted = submission.reserve
    payload_hash = private_hash_of(submission.body, keys, submission.private) if wanted.key else ""
    return replace(wanted, guest=seal(keys, person), payload_hash=payload_hash)


def submission_of(scope: Mapping[str, Any], data: NewReservation, hold_lifetime: timedelta, body: bytes) -> Submission:
    """Return what a request for a reservation wants. `body` is what `data` was decoded from. Raises Invalid."""
    person = data.person
    return Submission(_reserve_of(scope, data, hold_lifetime, body if person is None else b""), person, body)


def _reserve_of(scope: Mapping[str, Any], data: NewReservation, hold_lifetime: timedelta, body: bytes) -> Reserve:
    lines = data.claims
    key, principal = key_of(scope, "reservations.make"), principal_of(scope)
    guest_id, within = made_for(
        data.guest.id if data.guest else None, reach_in(scope, "reservations.make"), "reservations.make"
    )
    return Reserve(
        lines=lines,
        hold_for=timedelta(seconds=data.ttl_seconds) if data.ttl_seconds else hold_lifetime,
        key=key,
        payload_hash=hash_of(body) if key else "",
        guest_id=guest_id,
        within=within,
        note=data.note,
        metadata=data.metadata_text,
        client_id=principal.client_id,
        changed_by=principal.name,
        render=render_reservation,
        headers=trace_of(scope),
    )


@get(
    "/reservations/{reservation_id:str}",
    responses=reading(UnknownReservation),
    tags=["reservations"],
    operation="reservations.read",
)
async def get_reservation(reservation_id: UUID, reads: ClientBulkhead, reach: Reach) -> Response[ReservationView]:
    """Get a reservation. Its ETag is its version."""
    reservation = await reads.run(lambda session: reservations.get(session, reservation_id, reach))
    return answered(Answered(render_reservation(reservation)), status=200, at="/reservations")


@get("/reservations", responses=reading(), tags=["reservations"], operation="reservations.list")
async def list_reservations(
    lists: ClientBulkhead,
    reach: Reach,
    status: Status | None = None,
    item_id: Annotated[int | None, Parameter(ge=1, le=2**63 - 1)] = None,
    sku: Annotated[str | None, Parameter(max_length=64, pattern=NO_NUL)] = None,
    guest_id: Annotated[str | None, Parameter(max_length=64, pattern=NO_NUL)] = None,
    venue: Annotated[str | None, Parameter(max_length=64, pattern=NO_NUL)] = None,
    provider: Annotated[str | None, Parameter(max_length=64, pattern=NO_NUL)] = None,
    source: Annotated[str | None, Parameter(max_length=50, pattern=NO_NUL)] = None,
    since: Annotated[
        str | None, Parameter(query="from", description="Made at this time or later", schema_extra=TIMESTAMP)
    ] = None,
    before: Annotated[
        str | None, Parameter(query="to", description="Made before this time", schema_extra=TIMESTAMP)
    ] = None,
    ends_after: Annotated[
        str | None, Parameter(description="Of time that ends after this instant", schema_extra=TIMESTAMP)
    ] = None,
    starts_before: Annotated[
        str | None, Parameter(description="Of time that starts before this instant", schema_extra=TIMESTAMP)
    ] = None,
    limit: Annotated[int, Parameter(ge=1, le=1_000, description="Maximum number of reservations")] = 100,
    cursor: Annotated[str | None, Parameter(max_length=100, pattern=NO_NUL)] = None,
) -> ReservationPage:
    """List reservations, the newest first.

    With `ends_after` or `starts_before` it lists those of calendars that overlap the time between, in order of their
    start. Then they are not narrowed to when they were made.
    """
    wanted = Filter(
        status=status,
        item_id=item_id,
        sku=sku,
        guest_id=guest_id,
        venue=venue,
        provider=provider,
        source=source,
        since=timestamp_of("from", since),
        before=timestamp_of("to", before),
    )

    window = Window(
        ends_after=timestamp_of("ends_after", ends_after), starts_before=timestamp_of("starts_before", starts_before)
    )
    if window != Window():
        for name, given in (("from", since), ("to", before)):
            if given is not None:
                raise Invalid(name, "it narrows the time of making: leave it out with ends_after or starts_before")
        after = None if cursor is None else cursors.read_start(cursor, UUID)
        return await lists.run(
            lambda session: ReservationPage.of_window(
                reservations.find_overlapping(session, wanted, window, after=after, limit=limit, reach=reach)
            )
        )
    before_id = None if cursor is None else cursors.read_id(cursor)
    return await lists.run(
        lambda session: ReservationPage.of(
            reservations.find(session, wanted, before_id=before_id, limit=limit, reach=reach)
        )
    )


ROUTES: Sequence[HTTPRouteHandler] = (
    make_reservation,
    list_reservations,
    get_reservation,
    *changes.ROUTES,
    *guests.ROUTES,
)
