"""Two baselines: the reservation as plain SQL in an async transaction of its own, and an endpoint that does nothing.

The tables, the rows, the answer and the server are the same as the product's. Neither is part of the product.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg
from litestar import Litestar, Request, Response, post
from litestar.exceptions import HTTPException
from psycopg.types.json import Json

from api.http.payloads import hash_of
from api.reservations.schemas import NewReservation
from domain.fulfilment import load_routes
from domain.outbox import Routes
from domain.outbox.table import lane_of
from domain.runtime.identity import new_id
from domain.runtime.settings import Settings

#: This number gave the best figure on the hot item. More connections would only wait for the lock.
CONNECTIONS = 16

CLIENT, OPERATION = "anonymous", "reservations.make"

Connection = psycopg.AsyncConnection[Any]


def create_app() -> Litestar:
    settings = Settings.load()

    @asynccontextmanager
    async def running(app: Litestar) -> AsyncIterator[None]:
        pool: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for _ in range(CONNECTIONS):
            pool.put_nowait(await Connection.connect(settings.database_url, prepare_threshold=1))
        app.state.pool, app.state.routes = pool, load_routes(settings)
        yield
        while not pool.empty():
            await pool.get_nowait().close()

    return Litestar([reserve], lifespan=[running], logging_config=None, openapi_config=None)


def create_empty_app() -> Litestar:
    return Litestar([empty], logging_config=None, openapi_config=None)


@post("/reservations")
async def empty(data: dict[str, Any]) -> Response[bytes]:
    return Response(b"{}", status_code=201, media_type="application/json")


@post("/reservations")
async def reserve(request: Request[Any, Any, Any], data: NewReservation) -> Response[bytes]:
    pool, routes = request.app.state.pool, request.app.state.routes
    connection = await pool.get()
    try:
        async with connection.transaction():
            key, payload_hash = request.headers["idempotency-key"], hash_of(await request.body())
            answer = await _reserve(connection, routes, data, key, payload_hash)
    finally:
        pool.put_nowait(connection)
    return Response(answer, status_code=201, media_type="application/json")


async def _reserve(connection: Connection, routes: Routes, data: NewReservation, key: str, payload_hash: str) -> bytes:
    stored = await (
        await connection.execute(
            "SELECT payload_hash, answer FROM idempotency_requests"
            " WHERE client_id = %s AND operation = %s AND idempotency_key = %s",
            [CLIENT, OPERATION, key],
        )
    ).fetchone()
    if stored and stored[0] != payload_hash:
        raise HTTPException(status_code=409, detail="key reused")
    if stored:
        return bytes(stored[1], "utf-8")
    item = await (
        await connection.execute(
            "SELECT sku, available_quantity, clock_timestamp() FROM items WHERE id = %s FOR UPDATE", [data.item_id]
        )
    ).fetchone()
    if item is None:
        raise HTTPException(status_code=404, detail="unknown item")
    sku, available, moment = item
    if available < data.quantity:
        raise HTTPException(status_code=409, detail="sold out")
    return await _write(connection, routes, data, key, payload_hash, sku, moment)


async def _write(
    connection: Connection,
    routes: Routes,
    data: NewReservation,
    key: str,
    payload_hash: str,
    sku: str,
    moment: datetime,
) -> bytes:
    made, expires_at = new_id(), moment + timedelta(minutes=15)
    answer = msgspec.json.encode(
        {"id": made, "item_id": data.item_id, "sku": sku, "quantity": data.quantity, "status": "PENDING", "version": 1}
        | {"expires_at": expires_at, "guest": None, "source": "api", "note": None, "metadata": None}
        | {"cancellation_reason": None, "created_at": moment, "updated_at": moment}
        | {"confirmed_at": None, "cancelled_at": None}
    )
    await connection.execute(
        "UPDATE items SET available_quantity = available_quantity - %s, updated_at = clock_timestamp() WHERE id = %s",
        [data.quantity, data.item_id],
    )
    await connection.execute(
        "INSERT INTO reservations (id, item_id, idempotency_key, quantity, status, expires_at, source, created_at,"
        " updated_at) VALUES (%s, %s, %s, %s, 'PENDING', %s, 'api', %s, %s)",
        [made, data.item_id, key, data.quantity, expires_at, moment, moment],
    )
    await connection.execute(
        "INSERT INTO reservation_history (reservation_id, to_status, changed_by) VALUES (%s, 'PENDING', %s)",
        [made, CLIENT],
    )
    payload = Json({"booking_id": str(made), "item_id": data.item_id, "sku": sku, "quantity": data.quantity})
    for event_type in ("booking.created", "reservation_confirm"):
        for name in routes.wanting(event_type):
            await connection.execute(
                "INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload, headers)"
                " VALUES (%s, %s, %s, %s, %s, %s, '{}')",
                [new_id(), name, lane_of(made), made, event_type, payload],
            )
    await connection.execute(
        "INSERT INTO idempotency_requests (client_id, operation, idempotency_key, payload_hash, reservation_id,"
        " answer) VALUES (%s, %s, %s, %s, %s, %s)",
        [CLIENT, OPERATION, key, payload_hash, made, answer.decode()],
    )
    return answer
