"""Changing reservations over HTTP: an operation for each status that a client may ask for, and others for the rest."""

from collections.abc import Awaitable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from litestar import Request, Response, patch, post, put
from litestar.handlers import HTTPRouteHandler
from sqlalchemy.orm import Session

from api.bulkheads import ClientBulkhead
from api.explanations import explained
from api.http.decoding import Strict, given_fields
from api.http.headers import key_of, principal_of, trace_of
from api.http.payloads import hash_of
from api.http.preconditions import etag_of, if_match_of
from api.http.responses import answered, changing
from api.reservations.schemas import (
    Cancellation,
    CheckIn,
    Completion,
    Confirmation,
    LongerHold,
    NewTime,
    NoShow,
    Reasoned,
    Rejection,
    ReservationChange,
    ReservationView,
    Versioned,
    period_of,
    render_reservation,
)
from domain import idempotency, reservations
from domain.idempotency import Answered
from domain.outbox import Routes
from domain.reservations import Amendment, Extension, Reschedule, Reservation, Wanted
from domain.reservations.lifecycle import Status
from domain.runtime.errors import (
    HoldExpired,
    HoldTooLong,
    Invalid,
    NotFree,
    OutsideOpeningHours,
    Refusal,
    SoldOut,
    StalePrecondition,
    StaleVersion,
    UnknownReservation,
    WrongStatus,
)

AnyRequest = Request[Any, Any, Any]


def _options(*refusals: type[Refusal]) -> Mapping[str, Any]:
    """Return what these operations have in common. They refuse a change for these reasons, and for those of all."""
    every = UnknownReservation, WrongStatus, HoldExpired, StalePrecondition
    return {"status_code": 200, "responses": changing(*every, *refusals), "tags": ["reservations"]}


#: The options of an operation that changes the status.
OPTIONS = _options(StaleVersion)


@post("/reservations/{reservation_id:str}/confirm", dto=Strict[Confirmation], **OPTIONS)
async def confirm_reservation(
    request: AnyRequest, reservation_id: UUID, changes: ClientBulkhead, routes: Routes, data: Confirmation | None = None
) -> Response[ReservationView]:
    """Confirm a hold. A hold that has expired can't be confirmed."""
    return await _set_status(request, reservation_id, changes, routes, Status.CONFIRMED, data or Confirmation())


@post("/reservations/{reservation_id:str}/reject", dto=Strict[Rejection], **OPTIONS)
async def reject_reservation(
    request: AnyRequest,
    reservation_id: UUID,
    item_changes: ClientBulkhead,
    routes: Routes,
    data: Rejection | None = None,
) -> Response[ReservationView]:
    """Reject a hold. Its units become available again."""
    return await _set_status(request, reservation_id, item_changes, routes, Status.REJECTED, data or Rejection())


@post("/reservations/{reservation_id:str}/cancel", dto=Strict[Cancellation], **OPTIONS)
async def cancel_reservation(
    request: AnyRequest,
    reservation_id: UUID,
    item_changes: ClientBulkhead,
    routes: Routes,
    data: Cancellation | None = None,
) -> Response[ReservationView]:
    """Cancel a reservation. Its units become available again."""
    return await _set_status(request, reservation_id, item_changes, routes, Status.CANCELLED, data or Cancellation())


@post("/reservations/{reservation_id:str}/check-in", dto=Strict[CheckIn], **OPTIONS)
async def check_in_reservation(
    request: AnyRequest, reservation_id: UUID, changes: ClientBulkhead, routes: Routes, data: CheckIn | None = None
) -> Response[ReservationView]:
    """Note that the guest of a confirmed reservation has arrived."""
    return await _set_status(request, reservation_id, changes, routes, Status.CHECKED_IN, data or CheckIn())


@post("/reservations/{reservation_id:str}/complete", dto=Strict[Completion], **OPTIONS)
async def complete_reservation(
    request: AnyRequest, reservation_id: UUID, changes: ClientBulkhead, routes: Routes, data: Completion | None = None
) -> Response[ReservationView]:
    """Complete a reservation that is confirmed or checked in. Its units are used up."""
    return await _set_status(request, reservation_id, changes, routes, Status.COMPLETED, data or Completion())


@post("/reservations/{reservation_id:str}/no-show", dto=Strict[NoShow], **OPTIONS)
async def note_no_show(
    request: AnyRequest, reservation_id: UUID, item_changes: ClientBulkhead, routes: Routes, data: NoShow | None = None
) -> Response[ReservationView]:
    """Note that the guest of a confirmed reservation did not come. Stock becomes available again; time stays taken."""
    return await _set_status(request, reservation_id, item_changes, routes, Status.NO_SHOW, data or NoShow())


@post("/reservations/{reservation_id:str}/extend", dto=Strict[LongerHold], **_options(HoldTooLong, StaleVersion))
async def extend_reservation(
    request: AnyRequest, reservation_id: UUID, changes: ClientBulkhead, routes: Routes, data: LongerHold
) -> Response[ReservationView]:
    """Extend a hold, so that it lasts for at least `ttl_seconds` from now on. It never becomes shorter."""
    wanted = Extension(timedelta(seconds=data.ttl_seconds))
    return await _change(
        request, reservation_id, changes, routes, wanted, key="extend", expected_version=data.expected_version
    )


@patch("/reservations/{reservation_id:str}", dto=Strict[ReservationChange], **_options())
async def change_reservation(
    request: AnyRequest, reservation_id: UUID, changes: ClientBulkhead, routes: Routes, data: ReservationChange
) -> Response[ReservationView]:
    """Change the note of a reservation that has not ended. Null takes it away."""
    wanted = Amendment(given_fields(data))
    return await _change(request, reservation_id, changes, routes, wanted, key="change")


@put(
    "/reservations/{reservation_id:str}",
    dto=Strict[NewTime],
    **_options(StaleVersion, NotFree, OutsideOpeningHours, SoldOut),
)
async def reschedule_reservation(
    request: AnyRequest, reservation_id: UUID, item_changes: ClientBulkhead, routes: Routes, data: NewTime
) -> Response[ReservationView]:
    """Change the period or the quantity, if what is wanted is free. If it is not, the reservation stays as it is."""
    wanted = Reschedule(period_of(data.start, data.end), data.quantity)
    if wanted == Reschedule():
        raise Invalid("body", "it is empty; give start and end, or quantity")
    return await _change(
        request,
        reservation_id,
        item_changes,
        routes,
        wanted,
        key="reschedule",
        expected_version=data.expected_version,
    )


async def _set_status(
    request: AnyRequest, reservation_id: UUID, bulkhead: ClientBulkhead, routes: Routes, to: Status, asked: Versioned
) -> Response[ReservationView]:
    return await _change(
        request,
        reservation_id,
        bulkhead,
        routes,
        to,
        key=to.lower(),
        reason=asked.reason if isinstance(asked, Reasoned) else None,
        expected_version=asked.expected_version,
    )


async def _change(
    request: AnyRequest,
    reservation_id: UUID,
    bulkhead: ClientBulkhead,
    routes: Routes,
    wanted: Wanted,
    *,
    key: str,
    reason: str | None = None,
    expected_version: int | None = None,
) -> Response[ReservationView]:
    """Change a reservation. `key` names the operation to which an idempotency key belongs."""
    its_key, changed_by = key_of(request.scope, f"reservations.{key}"), principal_of(request.scope).client_id
    if_match, headers = if_match_of(request), trace_of(request.scope)
    payload_hash = hash_of(await request.body(), reservation_id) if its_key else ""

    def require_match(one: Reservation) -> None:
        if if_match is not None:
            if_match.require(etag_of(one.version), one.version)

    def change(session: Session) -> Reservation | Refusal:
        return reservations.change(
            session,
            reservation_id,
            wanted,
            reason=reason,
            changed_by=changed_by,
            precondition=require_match,
            expected_version=expected_version,
            headers=headers,
            routes=routes,
        )

    def act(session: Session) -> Answered | Refusal:
        return idempotency.once(session, its_key, payload_hash, change, render_reservation)

    bulkheads, client = request.app.state, principal_of(request.scope)
    outcome = await explained(_raising(bulkhead.run(act)), bulkheads.explanations, client, but=reservation_id)
    return answered(outcome, status=200, at="/reservations")


async def _raising(outcome: Awaitable[Answered | Refusal]) -> Answered:
    """Return an answer, or raise the refusal, of which something is committed by then."""
    found = await outcome
    if isinstance(found, Refusal):
        raise found
    return found


ROUTES: Sequence[HTTPRouteHandler] = (
    confirm_reservation,
    reject_reservation,
    cancel_reservation,
    check_in_reservation,
    complete_reservation,
    note_no_show,
    extend_reservation,
    change_reservation,
    reschedule_reservation,
)
