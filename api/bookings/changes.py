"""Changing bookings over HTTP: cancelling them, and the status that their venue gives them."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler
from sqlalchemy.orm import Session

from api.bookings.fields import PATH
from api.bookings.keys import key_with
from api.bookings.reading import booking_of
from api.bookings.requests import BookingCancellation, BookingStatus
from api.bookings.schemas import BookingView
from api.bulkheads import ClientBulkhead
from api.http.decoding import Strict
from api.http.headers import principal_of, trace_of
from api.http.payloads import hash_of
from api.http.preconditions import precondition_of
from api.http.responses import answered, changing
from domain import idempotency, reservations
from domain.access import Reach
from domain.idempotency import Answered
from domain.outbox import Routes
from domain.reservations import Reservation
from domain.reservations.lifecycle import TRANSITIONS, Status
from domain.runtime.errors import (
    HoldExpired,
    IllegalTransition,
    Invalid,
    Refusal,
    StalePrecondition,
    StaleVersion,
    UnknownReservation,
    WrongStatus,
)

AnyRequest = Request[Any, Any, Any]

#: The statuses that nobody asks for: a booking begins with one, time brings another, and blocks have the third.
NOT_ASKED_FOR = frozenset({Status.PENDING, Status.EXPIRED, Status.BLOCKED})

OPTIONS: Mapping[str, Any] = {
    "status_code": 200,
    "responses": changing(UnknownReservation, IllegalTransition, HoldExpired, StaleVersion, StalePrecondition),
    "tags": ["bookings"],
}


@post(f"{PATH}/{{booking_id:str}}/cancel", dto=Strict[BookingCancellation], **OPTIONS, operation="bookings.cancel")
async def cancel_booking(
    request: AnyRequest,
    booking_id: UUID,
    item_changes: ClientBulkhead,
    routes: Routes,
    data: BookingCancellation | None = None,
) -> Response[BookingView]:
    """Cancel a booking. What was held for it is released, and what was paid is given back."""
    asked = data or BookingCancellation()
    return await _set_status(
        request, booking_id, item_changes, routes, Status.CANCELLED, asked, operation="bookings.cancel"
    )


@post(f"{PATH}/{{booking_id:str}}/status", dto=Strict[BookingStatus], **OPTIONS, operation="bookings.status")
async def set_booking_status(
    request: AnyRequest, booking_id: UUID, item_changes: ClientBulkhead, routes: Routes, data: BookingStatus
) -> Response[BookingView]:
    """Give a booking another status, as its lifecycle allows."""
    if data.status in NOT_ASKED_FOR:
        raise Invalid("status", f"no booking becomes {data.status} on request")
    return await _set_status(request, booking_id, item_changes, routes, data.status, data, operation="bookings.status")


async def _set_status(
    request: AnyRequest,
    booking_id: UUID,
    bulkhead: ClientBulkhead,
    routes: Routes,
    to: Status,
    asked: BookingCancellation | BookingStatus,
    *,
    operation: str,
) -> Response[BookingView]:
    reach: Reach = request.scope["reach"]  # type: ignore[typeddict-item]
    key = key_with(asked.idempotency_key, request.scope, operation)
    changed_by, headers = principal_of(request.scope).name, trace_of(request.scope)
    payload_hash = hash_of(await request.body(), booking_id) if key else ""
    precondition = precondition_of(request)

    def act(session: Session) -> Answered | Refusal:
        booking_of(session, reservations.get(session, booking_id, reach))

        def change(session: Session) -> Reservation | Refusal:
            found = reservations.change(
                session,
                booking_id,
                to,
                reason=asked.reason,
                changed_by=changed_by,
                precondition=precondition,
                expected_version=asked.expected_version,
                headers=headers,
                reach=reach,
                routes=routes,
            )
            return _in_contract(found) if isinstance(found, WrongStatus) else found

        def render(one: Reservation) -> str:
            return BookingView.of(one, booking_of(session, one)).rendered()

        return idempotency.once(session, key, payload_hash, change, render)

    return answered(await bulkhead.run(act), status=200, at=PATH)


def _in_contract(refused: WrongStatus) -> IllegalTransition:
    """Return the refusal of a change of status as the contract has it, with what is allowed instead."""
    allowed = sorted(TRANSITIONS.get(Status(refused.status), frozenset()) - NOT_ASKED_FOR)
    return IllegalTransition(refused.status, refused.to or refused.status, ", ".join(allowed) or "nothing else")


ROUTES: Sequence[HTTPRouteHandler] = (cancel_booking, set_booking_status)
