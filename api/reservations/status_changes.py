"""Changing the status of a reservation over HTTP: one operation for each status that a client may ask for."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler
from sqlalchemy.orm import Session

from api.bulkheads import Bulkhead
from api.http.decoding import Strict
from api.http.headers import client_of, key_of, trace_of
from api.http.payloads import hash_of
from api.http.preconditions import etag_of, if_match_of
from api.http.responses import answered, changing
from api.reservations.schemas import (
    Cancellation,
    CheckIn,
    Completion,
    Confirmation,
    NoShow,
    Reasoned,
    Rejection,
    ReservationView,
    Versioned,
    render_reservation,
)
from domain import idempotency, reservations
from domain.idempotency import Answered
from domain.outbox import Routes
from domain.reservations import Reservation
from domain.reservations.lifecycle import Status
from domain.runtime.errors import HoldExpired, Refusal, StalePrecondition, StaleVersion, UnknownReservation, WrongStatus

AnyRequest = Request[Any, Any, Any]

#: What these operations have in common.
OPTIONS: Mapping[str, Any] = {
    "status_code": 200,
    "responses": changing(UnknownReservation, WrongStatus, HoldExpired, StaleVersion, StalePrecondition),
    "tags": ["reservations"],
}


@post("/reservations/{reservation_id:str}/confirm", dto=Strict[Confirmation], **OPTIONS)
async def confirm_reservation(
    request: AnyRequest, reservation_id: UUID, changes: Bulkhead, routes: Routes, data: Confirmation | None = None
) -> Response[ReservationView]:
    """Confirm a hold. A hold that has expired can't be confirmed."""
    return await _change(request, reservation_id, changes, routes, Status.CONFIRMED, data or Confirmation())


@post("/reservations/{reservation_id:str}/reject", dto=Strict[Rejection], **OPTIONS)
async def reject_reservation(
    request: AnyRequest, reservation_id: UUID, item_changes: Bulkhead, routes: Routes, data: Rejection | None = None
) -> Response[ReservationView]:
    """Reject a hold. Its units become available again."""
    return await _change(request, reservation_id, item_changes, routes, Status.REJECTED, data or Rejection())


@post("/reservations/{reservation_id:str}/cancel", dto=Strict[Cancellation], **OPTIONS)
async def cancel_reservation(
    request: AnyRequest, reservation_id: UUID, item_changes: Bulkhead, routes: Routes, data: Cancellation | None = None
) -> Response[ReservationView]:
    """Cancel a reservation. Its units become available again."""
    return await _change(request, reservation_id, item_changes, routes, Status.CANCELLED, data or Cancellation())


@post("/reservations/{reservation_id:str}/check-in", dto=Strict[CheckIn], **OPTIONS)
async def check_in_reservation(
    request: AnyRequest, reservation_id: UUID, changes: Bulkhead, routes: Routes, data: CheckIn | None = None
) -> Response[ReservationView]:
    """Note that the guest of a confirmed reservation has arrived."""
    return await _change(request, reservation_id, changes, routes, Status.CHECKED_IN, data or CheckIn())


@post("/reservations/{reservation_id:str}/complete", dto=Strict[Completion], **OPTIONS)
async def complete_reservation(
    request: AnyRequest, reservation_id: UUID, changes: Bulkhead, routes: Routes, data: Completion | None = None
) -> Response[ReservationView]:
    """Complete a reservation that is confirmed or checked in. Its units are used up."""
    return await _change(request, reservation_id, changes, routes, Status.COMPLETED, data or Completion())


@post("/reservations/{reservation_id:str}/no-show", dto=Strict[NoShow], **OPTIONS)
async def note_no_show(
    request: AnyRequest, reservation_id: UUID, item_changes: Bulkhead, routes: Routes, data: NoShow | None = None
) -> Response[ReservationView]:
    """Note that the guest of a confirmed reservation did not come. Its units become available again."""
    return await _change(request, reservation_id, item_changes, routes, Status.NO_SHOW, data or NoShow())


async def _change(
    request: AnyRequest, reservation_id: UUID, bulkhead: Bulkhead, routes: Routes, to: Status, wanted: Versioned
) -> Response[ReservationView]:
    key, changed_by = key_of(request, f"reservations.{to.lower()}"), client_of(request)
    if_match, headers = if_match_of(request), trace_of(request)
    reason = wanted.reason if isinstance(wanted, Reasoned) else None
    payload_hash = hash_of(await request.body(), reservation_id) if key else ""

    def require_match(one: Reservation) -> None:
        if if_match is not None:
            if_match.require(etag_of(one.version), one.version)

    def change(session: Session) -> Reservation | Refusal:
        return reservations.change(
            session,
            reservation_id,
            to,
            reason=reason,
            changed_by=changed_by,
            precondition=require_match if if_match else None,
            expected_version=wanted.expected_version,
            headers=headers,
            routes=routes,
        )

    def act(session: Session) -> Answered | Refusal:
        return idempotency.once(session, key, payload_hash, change, render_reservation)

    outcome = await bulkhead.run(act)
    return answered(outcome, status=200, at="/reservations")


ROUTES: Sequence[HTTPRouteHandler] = (
    confirm_reservation,
    reject_reservation,
    cancel_reservation,
    check_in_reservation,
    complete_reservation,
    note_no_show,
)
