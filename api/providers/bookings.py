"""Bookings of slots over HTTP: users make and cancel them, and providers accept or reject them.

Source: 3-slots-providers-sqs.md, "API Endpoints".
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter
from sqlalchemy.orm import Session

from api.auth.authentication import reach_in
from api.bulkheads import ClientBulkhead
from api.http.decoding import NO_NUL, Strict
from api.http.headers import key_of, principal_of, trace_of
from api.http.paths import segment
from api.http.payloads import hash_of
from api.http.responses import answered, changing, reading
from api.providers.schemas import (
    Decision,
    NewSlotBooking,
    SlotBookingAnswer,
    SlotBookingChange,
    SlotBookingHistory,
    SlotBookingView,
)
from api.reservations.routes import Submission, submitted
from domain import idempotency, items, reservations
from domain.access import Reach
from domain.calendars import Period
from domain.idempotency import Answered
from domain.outbox import Routes
from domain.providers import slot_of
from domain.reservations import Claim, Reservation, Reserve, history
from domain.reservations.lifecycle import Status
from domain.reservations.ownership import made_for
from domain.runtime.errors import (
    HoldExpired,
    Invalid,
    Refusal,
    SlotHasBegun,
    SlotTaken,
    SoldOut,
    UnknownItem,
    UnknownReservation,
    UnknownSlot,
    WrongStatus,
)

AnyRequest = Request[Any, Any, Any]

PATH = "/bookings"
OF_PROVIDER = "/providers/{provider_id:str}/bookings/{booking_id:str}"

OPTIONS: Mapping[str, Any] = {
    "status_code": 200,
    "responses": changing(UnknownReservation, WrongStatus, HoldExpired),
    "tags": ["slots"],
}


@post(
    PATH,
    dto=Strict[NewSlotBooking],
    responses=changing(UnknownSlot, SlotTaken, SlotHasBegun),
    tags=["slots"],
    operation="slots.book",
)
async def book_slot(request: AnyRequest, data: NewSlotBooking) -> Response[SlotBookingView]:
    """Book a slot. It is pending until its provider accepts or rejects it, at the latest until the slot begins."""
    scope, body = request.scope, await request.body()
    key, principal = key_of(scope, "slots.book"), principal_of(scope)
    guest_id, within = made_for(data.user_id, reach_in(scope, "slots.book"), "slots.book")
    wanted = Reserve(
        lines=(Claim(data.slot_id, 1),),
        hold_for=None,
        of_slot=True,
        key=key,
        payload_hash=hash_of(body) if key else "",
        guest_id=guest_id,
        within=within,
        client_id=principal.client_id,
        changed_by=principal.name,
        render=_render_made,
        headers=trace_of(scope),
    )
    try:
        outcome = await submitted(request.app.state, scope, Submission(wanted, None, body))
    except (UnknownItem, Invalid):
        raise UnknownSlot(data.slot_id) from None
    except SoldOut:
        raise SlotTaken(data.slot_id) from None
    return answered(outcome, status=201, at=PATH)


def _render_made(made: Reservation) -> str:
    assert made.slot, "it was made of one"
    return SlotBookingView.of(made, made.slot).rendered()


@get(f"{PATH}/{{booking_id:str}}", responses=reading(UnknownReservation), tags=["slots"], operation="slots.read")
async def get_slot_booking(booking_id: UUID, reads: ClientBulkhead, reach: Reach) -> SlotBookingView:
    """Get a booking of a slot."""
    return await reads.run(lambda session: SlotBookingView.of(*_booking(session, booking_id, reach)))


@get(
    f"{PATH}/{{booking_id:str}}/history", responses=reading(UnknownReservation), tags=["slots"], operation="slots.read"
)
async def get_slot_booking_history(booking_id: UUID, reads: ClientBulkhead, reach: Reach) -> SlotBookingHistory:
    """Get the changes of a booking of a slot, the oldest first."""

    def read(session: Session) -> SlotBookingHistory:
        _booking(session, booking_id, reach)
        return SlotBookingHistory(
            booking_id, [SlotBookingChange.of(entry) for entry in history.read(session, booking_id)]
        )

    return await reads.run(read)


def _booking(
    session: Session, booking_id: UUID, reach: Reach, provider: str | None = None
) -> tuple[Reservation, Period]:
    """Return a booking of a slot, and when the slot is. Raises UnknownReservation, also if it is another provider's."""
    found = reservations.get(session, booking_id, reach)
    slot = None if found.period or found.further_lines else slot_of(items.get(session, found.item_id))
    if slot is None or provider not in (None, found.provider):
        raise UnknownReservation(booking_id)
    return found, slot


ProviderInPath = Annotated[str, Parameter(max_length=64, pattern=NO_NUL, description="The provider whose slot it is")]


@post(f"{OF_PROVIDER}/accept", **OPTIONS, operation="slots.accept")
async def accept_slot_booking(
    request: AnyRequest, provider_id: ProviderInPath, booking_id: UUID, changes: ClientBulkhead, routes: Routes
) -> Response[SlotBookingAnswer]:
    """Accept a pending booking of a slot of the provider."""
    return await _set_status(
        request,
        booking_id,
        changes,
        routes,
        Status.CONFIRMED,
        "accepted",
        provider=provider_id,
        key="slots.accept",
    )


@post(f"{OF_PROVIDER}/reject", dto=Strict[Decision], **OPTIONS, operation="slots.reject")
async def reject_slot_booking(
    request: AnyRequest,
    provider_id: ProviderInPath,
    booking_id: UUID,
    item_changes: ClientBulkhead,
    routes: Routes,
    data: Decision | None = None,
) -> Response[SlotBookingAnswer]:
    """Reject a pending booking of a slot of the provider. The slot can be booked again."""
    return await _set_status(
        request,
        booking_id,
        item_changes,
        routes,
        Status.REJECTED,
        "rejected",
        provider=provider_id,
        key="slots.reject",
        reason=data.reason if data else None,
    )


@post(f"{PATH}/{{booking_id:str}}/cancel", dto=Strict[Decision], **OPTIONS, operation="slots.cancel")
async def cancel_slot_booking(
    request: AnyRequest, booking_id: UUID, item_changes: ClientBulkhead, routes: Routes, data: Decision | None = None
) -> Response[SlotBookingAnswer]:
    """Cancel a booking of a slot that is pending or confirmed. The slot can be booked again."""
    return await _set_status(
        request,
        booking_id,
        item_changes,
        routes,
        Status.CANCELLED,
        "cancelled",
        provider=None,
        key="slots.cancel",
        reason=data.reason if data else None,
    )


async def _set_status(
    request: AnyRequest,
    booking_id: UUID,
    bulkhead: ClientBulkhead,
    routes: Routes,
    to: Status,
    done: str,
    *,
    provider: str | None,
    key: str,
    reason: str | None = None,
) -> Response[SlotBookingAnswer]:
    """Change the status of a booking, once: who asks again without a key is refused, as the contract has it."""
    reach: Reach = request.scope["reach"]  # type: ignore[typeddict-item]
    its_key, changed_by, headers = key_of(request.scope, key), principal_of(request.scope).name, trace_of(request.scope)
    payload_hash = hash_of(await request.body(), booking_id) if its_key else ""

    def act(session: Session) -> Answered | Refusal:
        _, slot = _booking(session, booking_id, reach, provider and segment(provider))

        def change(session: Session) -> Reservation | Refusal:
            return reservations.change(
                session,
                booking_id,
                to,
                reason=reason,
                changed_by=changed_by,
                is_repeatable=False,
                headers=headers,
                reach=reach,
                routes=routes,
            )

        def render(one: Reservation) -> str:
            return SlotBookingAnswer(f"Booking {done} successfully", SlotBookingView.of(one, slot)).rendered()

        return idempotency.once(session, its_key, payload_hash, change, render)

    return answered(await bulkhead.run(act), status=200, at=PATH)


ROUTES: Sequence[HTTPRouteHandler] = (
    book_slot,
    get_slot_booking,
    get_slot_booking_history,
    accept_slot_booking,
    reject_slot_booking,
    cancel_slot_booking,
)
