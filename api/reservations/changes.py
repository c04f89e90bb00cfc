"""Changing reservations over HTTP: an operation for each status that a client may ask for, and others for the rest."""

from collections.abc import Mapping, Sequence
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
from api.http.preconditions import precondition_of
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
from domain.access import Reach
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


@post(
    "/reservations/{reservation_id:str}/confirm", dto=Strict[Confirmation], **OPTIONS, operation="reservations.confirm"
)
async def confirm_reservation(
    request: AnyRequest, reservation_id: UUID, changes: ClientBulkhead, routes: Routes, data: Confirmation | None = None
) -> Response[ReservationView]:
    """Confirm a hold. A hold that has expired can't be confirmed."""
    return await _set_status(request, reservation_id, changes, routes, Status.CONFIRMED, data or Confirmation())


@post("/reservations/{reservation_id:str}/reject", dto=Strict[Rejection], **OPTIONS, operation="reservations.reject")
async def reject_reservation(
    request: AnyRequest,
    reservation_id: UUID,
    item_changes: ClientBulkhead,
    routes: Routes,
    data: Rejection | None = None,
) -> Response[ReservationView]:
    """Reject a hold. Its units become available again."""
    return await _set_status(request, reservation_id, item_changes, routes, Status.REJECTED, data or Rejection())


@post("/reservations/{reservation_id:str}/cancel", dto=Strict[Cancellation], **OPTIONS, operation="reservations.cancel")
async def cancel_reservation(
    request: AnyRequest,
    reservation_id: UUID,
    item_changes: ClientBulkhead,
    routes: Routes,
    data: Cancellation | None = None,
) -> Response[ReservationView]:
    """Cancel a reservation. Its units become available again."""
    return await _set_status(request, reservation_id, item_changes, routes, Status.CANCELLED, data or Cancellation())


@post("/reservations/{reservation_id:str}/check-in", dto=Strict[CheckIn], **OPTIONS, operation="reservations.check-in")
async def check_in_reservation(
    request: AnyRequest, reservation_id: UUID, changes: ClientBulkhead, routes: Routes, data: CheckIn | None = None
) -> Response[ReservationView]:
    """Note that the guest of a confirmed reservation has arrived."""
    return await _set_status(request, reservation_id, changes, routes, Status.CHECKED_IN, data or CheckIn())


@post(
    "/reservations/{reservation_id:str}/complete", dto=Strict[Completion], **OPTIONS, operation="reservations.complete"
)
async def complete_reservation(
    request: AnyRequest, reservation_id: UUID, changes: ClientBulkhead, routes: Routes, data: Completion | None = None
) -> Response[ReservationView]:
    """Complete a reservation that is confirmed or checked in. Its units are used up."""
    return await _set_status(request, reservation_id, changes, routes, Status.COMPLETED, data or Completion())


@post("/reservations/{reservation_id:str}/no-show", dto=Strict[NoShow], **OPTIONS, operation="reservations.no-show")
async def note_no_show(
    request: AnyRequest, reservation_id: UUID, item_changes: ClientBulkhead, routes: Routes, data: NoShow | None = None
) -> Response[ReservationView]:
    """Note that the guest of a confirmed reservation did not come. Stock becomes available again; time stays taken."""
    return await _set_status(request, reservation_id, item_changes, routes, Status.NO_SHOW, data or NoShow())


@post(
    "/reservations/{reservation_id:str}/extend",
    dto=Strict[LongerHold],
    **_options(HoldTooLong, StaleVersion),
    operation="reservations.extend",
)
async def extend_reservation(
    request: AnyRequest, reservation_id: UUID, changes: ClientBulkhead, routes: Routes, data: LongerHold
) -> Response[ReservationView]:
    """Extend a hold, so that it lasts for at least `ttl_seconds` from now on. It never becomes shorter."""
    wanted = Extension(timedelta(seconds=data.ttl_seconds))
    return await _change(
        request, reservation_id, changes, routes, wanted, key="extend", expected_version=data.expected_version
    )


@patch(
    "/reservations/{reservation_id:str}", dto=Strict[ReservationChange], **_options(), operation="reservations.change"
)
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
    operation="reservations.reschedule",
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
    its_key, principal = key_of(request.scope, f"reservations.{key}"), principal_of(request.scope)
    precondition, headers = precondition_of(request), trace_of(request.scope)
    reach: Reach = request.scope["reach"]  # type: ignore[typeddict-item]
    payload_hash = hash_of(await request.body(), reservation_id) if its_key else ""

    def change(session: Session) -> Reservation | Refusal:
        return reservations.change(
            session,
            reservation_id,
            wanted,
            reason=reason,
            changed_by=principal.name,
            precondition=precondition,
            expected_version=expected_version,
            headers=headers,
            reach=reach,
            routes=routes,
        )

    def act(session: Session) -> Answered | Refusal:
        return idempotency.once(session, its_key, payload_hash, change, render_reservation)

    explanations = request.app.state.explanations
    outcome = await explained(bulkhead.run(act), explanations, principal, but=reservation_id)
    return answered(outcome, status=200, at="/reservations")


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
