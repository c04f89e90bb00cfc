"""The outbox: how soon an event is delivered after the commit that recorded it."""

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import cast

import httpx

from benchmarks.environment import Connection, Environment, wait_until
from benchmarks.measure import Measure
from benchmarks.outbox.draining import is_drained

PORT = 8100

#: Reservations a second.
RATE = 200

SECONDS = 20

#: What is measured begins after this time, when all processes are warm.
WARM_UP_SECONDS = 3


def latency(environment: Environment) -> Iterator[Measure]:
    """The time from the commit of a reservation to the delivery of its event."""
    environment.clear()
    alone = {"CONFIRMATION_URL": ""}  # without the step, there is one event for each reservation
    worker = environment.running("bin/worker", "--processes", "2", "--threads", "4", **alone)
    scheduler = environment.running("bin/scheduler", **alone)
    with environment.serving("api.main:load_app", PORT, **alone), worker, scheduler:
        asyncio.run(_reserve(seconds=WARM_UP_SECONDS))
        begun = time.time()
        asyncio.run(_reserve(seconds=SECONDS))
        with environment.connect() as connection:
            wait_until(lambda: is_drained(connection))
            p50, p99 = _percentiles(connection, begun)
    yield Measure(
        what=f"commit → delivered, {RATE} reservations/s",
        measured=f"p50 {p50:.0f} ms, p99 {p99:.0f} ms",
        numbers={"p50_milliseconds": p50, "p99_milliseconds": p99},
    )


def _percentiles(connection: Connection, begun: float) -> tuple[float, float]:
    """Return the median and the 99th percentile, in milliseconds, of events recorded since that time."""
    found = connection.execute(
        "SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP"
        " (ORDER BY extract(epoch FROM processed_at - created_at) * 1000)"
        " FROM outbox WHERE destination = 'null' AND created_at > to_timestamp(%s)",
        [begun],
    ).fetchone()
    assert found is not None
    p50, p99 = cast(Sequence[float], found[0])
    return p50, p99


async def _reserve(*, seconds: int) -> None:
    """Send reservations at a steady rate, whether or not the earlier ones are answered."""
    run = secrets.token_hex(4)
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=30) as client,
        asyncio.TaskGroup() as requests,
    ):
        begun = time.monotonic()
        for n in range(RATE * seconds):
            await asyncio.sleep(max(0.0, begun + n / RATE - time.monotonic()))
            body = {"item_id": 1 + n, "quantity": 1}
            requests.create_task(client.post("/reservations", json=body, headers={"Idempotency-Key": f"{run}-{n}"}))
