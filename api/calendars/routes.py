"""Calendars over HTTP: what is free of them, and blocks."""

from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import Parameter

from api.bulkheads import ClientBulkhead
from api.calendars import availability
from api.calendars.schemas import NewBlock
from api.explanations import explained
from api.http.decoding import Strict
from api.http.headers import key_of, principal_of, trace_of
from api.http.payloads import hash_of
from api.http.responses import answered, changing
from api.reservations.schemas import ReservationView, render_reservation
from domain import items
from domain.access import Reach
from domain.calendars import Period
from domain.items import MAX_ID, Kind
from domain.reservations import Claim, Reserve
from domain.reservations.lifecycle import Status
from domain.runtime.errors import Invalid, NotFree, OutsideOpeningHours, UnknownItem

AnyRequest = Request[Any, Any, Any]

IdInPath = Annotated[int, Parameter(ge=1, le=MAX_ID, description="The id of the calendar")]


@post(
    "/items/by-id/{item_id:str}/blocks",
    dto=Strict[NewBlock],
    responses=changing(UnknownItem, NotFree, OutsideOpeningHours),
    tags=["calendars"],
    operation="reservations.block",
)
async def make_block(
    request: AnyRequest, item_id: IdInPath, data: NewBlock, reads: ClientBulkhead, reach: Reach
) -> Response[ReservationView]:
    """Block time of a calendar, so that nobody can reserve it. To unblock it, cancel the block."""
    period = Period(data.start, data.end)
    item = await reads.run(lambda session: items.get(session, item_id))
    if item.kind != Kind.CALENDAR:
        raise Invalid("item_id", f"{item.sku} is stock, of which no time can be blocked")
    client = principal_of(request.scope)
    key = key_of(request.scope, "reservations.block")
    wanted = Reserve(
        lines=(Claim(item_id, data.quantity or item.capacity or 1, period),),
        status=Status.BLOCKED,
        hold_for=None,
        key=key,
        payload_hash=hash_of(await request.body(), item_id) if key else "",
        note=data.note,
        within=reach,
        client_id=client.client_id,
        changed_by=client.name,
        render=render_reservation,
        headers=trace_of(request.scope),
    )
    state = request.app.state
    outcome = await explained(state.group_commit.submit(wanted), state.explanations, client)
    return answered(outcome, status=201, at="/reservations")


ROUTES: Sequence[HTTPRouteHandler] = (make_block, *availability.ROUTES)
