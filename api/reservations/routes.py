"""Reservations over HTTP."""

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session, sessionmaker

from api.group_commit import GroupCommit
from api.http.decoding import Strict
from api.http.headers import client_of, hash_of, key_of, trace_of, version_of
from api.http.responses import answered, problems
from api.reservations.schemas import (
    NO_NUL,
    Cancellation,
    Confirmation,
    NewReservation,
    ReservationPage,
    ReservationView,
    render_reservation,
)
from domain import reservations
from domain.idempotency.stored_answers import stored_answers
from domain.reservations import Filter, Reservation, Reserve
from domain.reservations.lifecycle import Status
from domain.runtime.errors import Invalid, Refusal

Db = sessionmaker[Session]

#: How the document describes an instant, which is read as text.
INSTANT = {"format": "date-time"}

#: What a client may keep with a reservation, in bytes of JSON.
MAX_METADATA_BYTES = 16_384

#: How deep it may be nested.
MAX_METADATA_DEPTH = 16


def make_reservation_through(group_commit: GroupCommit, hold_for: timedelta) -> HTTPRouteHandler:
    """Return the door to a group commit. It is closed over, as injecting it would cost a third of the request."""

    @post("/reservations", dto=Strict[NewReservation], responses=problems(404, 409, 413, 415), tags=["reservations"])
    async def make_reservation(request: Request[Any, Any, Any], data: NewReservation) -> Response[ReservationView]:
        """Hold units of an item, until they are confirmed or the hold expires."""
        outcome = await group_commit.submit(_asked(request, data, hold_for))
        return answered(outcome, status=201, at="/reservations")

    return make_reservation


def _asked(request: Request[Any, Any, Any], data: NewReservation, hold_for: timedelta) -> Reserve:
    if (data.item_id is None) == (data.sku is None):
        raise Invalid("item_id", "give either item_id or sku, one of the two")
    if data.metadata:
        _insist_on_bounds(data.metadata)
    key = key_of(request, "reservations.make")
    return Reserve(
        item=data.item_id or data.sku or "",
        quantity=data.quantity,
        hold_for=timedelta(seconds=data.ttl_seconds) if data.ttl_seconds else hold_for,
        key=key,
        payload_hash=hash_of(data) if key else "",
        guest_id=data.guest.id if data.guest else None,
        note=data.note,
        metadata=data.metadata,
        changed_by=client_of(request),
        headers=trace_of(request),
    )


def _insist_on_bounds(metadata: dict[str, Any]) -> None:
    # The depth first: what is too deep can't be encoded either.
    if _is_deeper(metadata, MAX_METADATA_DEPTH):
        raise Invalid("metadata", f"it is nested more than {MAX_METADATA_DEPTH} deep")
    if len(msgspec.json.encode(metadata)) > MAX_METADATA_BYTES:
        raise Invalid("metadata", f"it has more than {MAX_METADATA_BYTES} bytes")


def _is_deeper(value: object, levels: int) -> bool:
    """Tell whether objects and lists are nested in more than that many levels. It looks no deeper."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)


@get("/reservations/{reservation_id:str}", sync_to_thread=True, responses=problems(404), tags=["reservations"])
def get_reservation(reservation_id: UUID, db: Db) -> Response[ReservationView]:
    """Get a reservation. Its ETag is its version."""
    with db.begin() as session:
        reservation = reservations.get(session, reservation_id)
    return answered(stored_answers.Answered(render_reservation(reservation)), status=200, at="/reservations")


@get("/reservations", sync_to_thread=True, responses=problems(), tags=["reservations"])
def list_reservations(
    db: Db,
    status: Status | None = None,
    item_id: Annotated[int | None, Parameter(ge=1, le=2**63 - 1)] = None,
    sku: Annotated[str | None, Parameter(max_length=64, pattern=NO_NUL)] = None,
    guest_id: Annotated[str | None, Parameter(max_length=64, pattern=NO_NUL)] = None,
    source: Annotated[str | None, Parameter(max_length=50, pattern=NO_NUL)] = None,
    since: Annotated[
        str | None, Parameter(query="from", description="Made at this instant or later", schema_extra=INSTANT)
    ] = None,
    before: Annotated[
        str | None, Parameter(query="to", description="Made before this instant", schema_extra=INSTANT)
    ] = None,
    limit: Annotated[int, Parameter(ge=1, le=1_000)] = 100,
    cursor: UUID | None = None,
) -> ReservationPage:
    """List reservations, the newest first."""
    wanted = Filter(
        status=status,
        item_id=item_id,
        sku=sku,
        guest_id=guest_id,
        source=source,
        since=_instant("from", since),
        before=_instant("to", before),
    )
    with db.begin() as session:
        found = reservations.find(session, wanted, before_id=cursor, limit=limit)
    return ReservationPage(
        [ReservationView.of(one) for one in found], str(found[-1].id) if len(found) == limit else None
    )


def _instant(name: str, written: str | None) -> datetime | None:
    """Read an instant strictly: one without an offset would be another one elsewhere. Raises Invalid."""
    try:
        return None if written is None else msgspec.convert(written, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError as error:
        raise Invalid(name, "it must be an instant with its offset, such as 2030-01-31T12:00:00Z") from error


@post(
    "/reservations/{reservation_id:str}/confirm",
    dto=Strict[Confirmation],
    sync_to_thread=True,
    status_code=200,
    responses=problems(404, 409, 412, 413, 415),
    tags=["reservations"],
)
def confirm_reservation(
    request: Request[Any, Any, Any], reservation_id: UUID, db: Db, data: Confirmation | None = None
) -> Response[ReservationView]:
    """Confirm a hold. One that has lapsed can't be confirmed any more."""
    asked = data or Confirmation()
    return _change(request, reservation_id, db, Status.CONFIRMED, None, asked.expected_version)


@post(
    "/reservations/{reservation_id:str}/cancel",
    dto=Strict[Cancellation],
    sync_to_thread=True,
    status_code=200,
    responses=problems(404, 409, 412, 413, 415),
    tags=["reservations"],
)
def cancel_reservation(
    request: Request[Any, Any, Any], reservation_id: UUID, db: Db, data: Cancellation | None = None
) -> Response[ReservationView]:
    """Cancel a reservation and give its stock back."""
    asked = data or Cancellation()
    return _change(request, reservation_id, db, Status.CANCELLED, asked.reason, asked.expected_version)


def _change(
    request: Request[Any, Any, Any],
    reservation_id: UUID,
    db: Db,
    to: Status,
    reason: str | None,
    expected_version: int | None,
) -> Response[ReservationView]:
    key, if_match, changed_by = key_of(request, f"reservations.{to.lower()}"), version_of(request), client_of(request)

    headers = trace_of(request)

    def change() -> Reservation | Refusal:
        return reservations.change(
            session,
            reservation_id,
            to,
            reason=reason,
            changed_by=changed_by,
            if_match=if_match,
            expected_version=expected_version,
            headers=headers,
        )

    with db.begin() as session:
        payload_hash = hash_of(reservation_id, reason, expected_version)
        outcome = stored_answers.once(session, key, payload_hash, change, render_reservation)
    return answered(outcome, status=200, at="/reservations")
