"""The baseline for time of calendars: the same reservation written the usual way, with an exclusion constraint.

Each request is one async SQLAlchemy transaction with ORM objects. It locks nothing: the constraint refuses what
overlaps. The tables, the rows, the answer and the server are the same. It is not part of the product.
"""

from typing import Any

from litestar import Litestar, Request, Response, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from api.http.payloads import hash_of
from api.reservations.schemas import NewReservation
from benchmarks.reservations.textbook import (
    Base,
    Item,
    Reservation,
    add_hold,
    add_what_follows,
    app_of,
    stored_answer,
)
from domain.calendars.table import TIME_IS_EXCLUSIVE, occupancies
from domain.outbox import Routes
from domain.runtime.database_errors import constraint_of


class Occupancy(Base):
    __table__ = occupancies


def create_app() -> Litestar:
    return app_of(reserve)


@post("/reservations")
async def reserve(request: Request[Any, Any, Any], data: NewReservation, state: State) -> Response[Any]:
    key, payload_hash = request.headers["idempotency-key"], hash_of(await request.body())
    try:
        async with state.sessions.begin() as session:
            answer = await _reserve(session, state.routes, data, key, payload_hash)
    except IntegrityError as error:
        if constraint_of(error) == TIME_IS_EXCLUSIVE:
            raise HTTPException(status_code=409, detail="not free") from error
        # Another request with the same key was faster: its answer is stored.
        async with state.sessions.begin() as session:
            answer = await _reserve(session, state.routes, data, key, payload_hash)
    return Response(answer, status_code=201, media_type="application/json")


async def _reserve(session: AsyncSession, routes: Routes, data: NewReservation, key: str, payload_hash: str) -> bytes:
    if stored := await stored_answer(session, key, payload_hash):
        return stored
    item = await session.get(Item, data.item_id)
    if item is None:
        raise HTTPException(status_code=404, detail="unknown item")
    reservation = await add_hold(session, data, key)
    session.add(_occupancy(reservation))
    return add_what_follows(session, reservation, item.sku, routes, payload_hash)


def _occupancy(of: Reservation) -> Occupancy:
    return Occupancy(
        reservation_id=of.id,
        position=1,
        item_id=of.item_id,
        units=of.quantity,
        blocked_from=of.starts_at,
        blocked_until=of.ends_at,
        held_until=of.expires_at,
        is_exclusive=True,
    )
