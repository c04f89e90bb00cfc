"""The baseline: the same reservation written the usual way.

Each request is one async SQLAlchemy transaction with ORM objects and `SELECT … FOR UPDATE`. The
tables, the rows, the answer and the server are the same. It is what a careful team would write
without Holdfast's ideas, and it is not part of the product.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from sqlalchemy import func, make_url, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from api.http.payloads import hash_of
from api.reservations.schemas import LineView, NewReservation, ReservationView
from domain import idempotency, items
from domain.fulfilment import load_routes
from domain.outbox import Routes
from domain.outbox.table import lane_of, outbox
from domain.reservations import table
from domain.reservations.lifecycle import Status
from domain.runtime import database
from domain.runtime.identity import new_id
from domain.runtime.settings import Settings

#: This number gave the best figure on the hot item. More connections would only wait for the lock.
CONNECTIONS = 16

CLIENT, OPERATION = "anonymous", "reservations.make"


class Base(DeclarativeBase):
    metadata = database.metadata


class Item(Base):
    __table__ = items.items


class Reservation(Base):
    __table__ = table.reservations
    metadata_ = table.reservations.c.metadata


class History(Base):
    __table__ = table.history


class Outbox(Base):
    __table__ = outbox


class IdempotencyRequest(Base):
    __table__ = idempotency.requests


def create_app() -> Litestar:
    settings = Settings.load()
    url = make_url(settings.database_url).set(drivername="postgresql+psycopg")

    @asynccontextmanager
    async def running(app: Litestar) -> AsyncIterator[None]:
        engine = create_async_engine(url, pool_size=CONNECTIONS, max_overflow=0)
        app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
        app.state.routes = load_routes(settings)
        yield
        await engine.dispose()

    return Litestar([reserve], lifespan=[running], logging_config=None, openapi_config=None)


@post("/reservations")
async def reserve(request: Request[Any, Any, Any], data: NewReservation, state: State) -> Response[Any]:
    key, payload_hash = request.headers["idempotency-key"], hash_of(await request.body())
    try:
        async with state.sessions.begin() as session:
            answer = await _reserve(session, state.routes, data, key, payload_hash)
    except IntegrityError:  # another request with the same key was faster: its answer is stored
        async with state.sessions.begin() as session:
            answer = await _reserve(session, state.routes, data, key, payload_hash)
    return Response(answer, status_code=201, media_type="application/json")


async def _reserve(session: AsyncSession, routes: Routes, data: NewReservation, key: str, payload_hash: str) -> bytes:
    stored = await session.get(IdempotencyRequest, (CLIENT, OPERATION, key))
    if stored and stored.payload_hash != payload_hash:
        raise HTTPException(status_code=409, detail="key reused")
    if stored:
        return bytes(stored.answer, "utf-8")
    item = (await session.execute(select(Item).where(Item.id == data.item_id).with_for_update())).scalar_one_or_none()
    if item is None:
        raise HTTPException(status_code=404, detail="unknown item")
    if item.available_quantity < data.quantity:
        raise HTTPException(status_code=409, detail="sold out")
    item.available_quantity -= data.quantity
    moment = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    reservation = _hold(data, key, moment)
    session.add(reservation)
    await session.flush()
    answer = _answer(reservation, item.sku)
    session.add(History(reservation_id=reservation.id, to_status=Status.PENDING, changed_by=CLIENT))
    session.add_all(_events(reservation, item.sku, routes))
    session.add(_stored_answer(key, payload_hash, reservation, answer))
    return answer


def _hold(data: NewReservation, key: str, moment: datetime) -> Reservation:
    return Reservation(
        id=new_id(),
        item_id=data.item_id,
        idempotency_key=key,
        quantity=data.quantity,
        status=Status.PENDING,
        version=1,
        expires_at=moment + timedelta(minutes=15),
        source="api",
        created_at=moment,
        updated_at=moment,
    )


def _events(reservation: Reservation, sku: str, routes: Routes) -> list[Outbox]:
    payload = {
        "booking_id": str(reservation.id),
        "item_id": reservation.item_id,
        "sku": sku,
        "quantity": reservation.quantity,
        "status": reservation.status,
        "version": reservation.version,
        "guest_id": None,
        "expires_at": reservation.expires_at.isoformat(),
    }
    return [
        Outbox(
            event_id=new_id(),
            destination=name,
            lane=lane_of(reservation.id),
            aggregate_id=reservation.id,
            type=event_type,
            payload=payload,
            headers={},
        )
        for event_type in ("booking.created", "reservation_confirm")
        for name in routes.wanting(event_type)
    ]


def _stored_answer(key: str, payload_hash: str, reservation: Reservation, answer: bytes) -> IdempotencyRequest:
    return IdempotencyRequest(
        client_id=CLIENT,
        operation=OPERATION,
        idempotency_key=key,
        payload_hash=payload_hash,
        reservation_id=reservation.id,
        answer=answer.decode(),
    )


def _answer(reservation: Reservation, sku: str) -> bytes:
    view = ReservationView(
        id=reservation.id,
        item_id=reservation.item_id,
        sku=sku,
        quantity=reservation.quantity,
        lines=[LineView(item_id=reservation.item_id, sku=sku, quantity=reservation.quantity)],
        status=reservation.status,
        version=reservation.version,
        start=None,
        end=None,
        expires_at=reservation.expires_at,
        guest=None,
        source=reservation.source,
        note=None,
        metadata=msgspec.Raw(b"null"),
        cancellation_reason=None,
        created_at=reservation.created_at,
        updated_at=reservation.updated_at,
        confirmed_at=None,
        checked_in_at=None,
        completed_at=None,
        cancelled_at=None,
        rejected_at=None,
    )
    return msgspec.json.encode(view)
