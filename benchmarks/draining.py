"""The outbox: how fast it drains, and how soon an event leaves."""

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import cast

import httpx
import psutil
import psycopg

from benchmarks.environment import Stage, wait_until
from benchmarks.measure import Measure, median

EVENTS = 200_000

#: As a busy shop has it: a few events a reservation.
EVENTS_PER_AGGREGATE = 5

ROUNDS = 3

#: What the bare loop settles at a time; the drain's batches are as large.
BATCH = 1_000

MEMORY_BUDGET = 150 * 2**20

PORT = 8100

RATE = 200

LATENCY_SECONDS = 20


def draining(stage: Stage) -> Iterator[Measure]:
    """One worker process against a loop that only fetches and updates: no order, no fence, no lanes."""
    ours, bare, memory = [], [], 0
    for _ in range(ROUNDS):
        fill(stage)
        rate, memory = drain(stage)
        ours.append(rate)
        fill(stage)
        bare.append(_loop(stage))
    ratio = median(ours) / median(bare)
    yield Measure(
        what="events/s drained to null:, one worker process, ordered and fenced",
        figure=f"{median(ours):,.0f}",
        baseline=f"bare SQL loop {median(bare):,.0f}: {ratio:.0%}",
        budget="≥ 40,000 and ≥ 50 %",
        met=median(ours) >= 40_000 and ratio >= 0.5,
    )
    yield Measure(
        what="resident memory of a worker process, after that load",
        figure=f"{memory / 2**20:.0f} MB",
        budget="≤ 150 MB",
        met=memory <= MEMORY_BUDGET,
    )


def fill(stage: Stage, *, backlog: int = 0) -> None:
    """Begin anew, with EVENTS recorded behind a backlog that waits for its retry."""
    stage.clear()
    with stage.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        record(connection, backlog)
        connection.execute("UPDATE outbox SET attempts = 1, available_at = now() + interval '1 hour'")
        record(connection, EVENTS)
        connection.execute("VACUUM (ANALYZE) outbox")
        connection.execute("CHECKPOINT")


def record(connection: psycopg.Connection[tuple[object, ...]], events: int) -> None:
    """Record that many events in one statement, of aggregates that are new."""
    connection.execute(FILL, {"events": events, "aggregates": events // EVENTS_PER_AGGREGATE})


#: Events as reservations record them, of aggregates in turn. The lane is `lane_of` in SQL.
FILL = """
    WITH aggregates AS (SELECT n, gen_random_uuid() AS id FROM generate_series(0, %(aggregates)s - 1) n)
    INSERT INTO outbox (event_id, destination, lane, aggregate_id, type, payload)
    SELECT gen_random_uuid(), 'null', get_byte(uuid_send(a.id), 15) %% 32, a.id, 'booking.created',
           jsonb_build_object('booking_id', a.id, 'item_id', 1, 'sku', 'sku-1', 'quantity', 1, 'status', 'PENDING',
                              'version', 1, 'guest_id', NULL, 'expires_at', '2026-01-01T00:00:00+00:00')
    FROM generate_series(0, %(events)s - 1) e JOIN aggregates a ON a.n = e %% %(aggregates)s ORDER BY e
"""


def drain(stage: Stage, *, processes: int = 1) -> tuple[float, int]:
    """Let `bin/worker` drain what is recorded. Return events/s, by the database's clock, and its largest memory."""
    worker = stage.running("bin/worker", "--processes", str(processes), "--threads", "4")
    with stage.connect() as connection, worker as process, stage.running("bin/scheduler"):
        # Those that start later would take the processor from those that drain already.
        connection.execute("UPDATE outbox_destinations SET paused = true")
        wait_until(lambda: _connected(connection) >= processes)
        connection.execute("UPDATE outbox_destinations SET paused = false")
        wait_until(lambda: pending(connection) == 0, seconds=120)
        memory = max(child.memory_info().rss for child in psutil.Process(process.pid).children(recursive=True))
        return drained(connection), memory


def _connected(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    """Return how many processes of ours are at the database: each keeps the connection by which it began."""
    time.sleep(0.1)
    found = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast' AND datname = current_database()"
    ).fetchone()
    return int(str(found[0])) if found else 0


def drained(connection: psycopg.Connection[tuple[object, ...]], *, after: int = 0) -> float:
    """Return the rate at which the events beyond that id were settled, from the first to the last one."""
    found = connection.execute(
        "SELECT count(*) / extract(epoch FROM max(processed_at) - min(processed_at))::float"
        " FROM outbox WHERE processed_at IS NOT NULL AND id > %s",
        [after],
    ).fetchone()
    assert found is not None
    return float(str(found[0]))


def pending(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    """Return whether ready events are left, as 1 or 0, after a short rest."""
    # The planner answers from the index of ready rows; counting them would slow the drain.
    found = connection.execute(
        "SELECT EXISTS (SELECT FROM outbox WHERE destination = 'null' AND processed_at IS NULL"
        " AND dead_at IS NULL AND available_at IS NULL)::int"
    ).fetchone()
    time.sleep(0.1)
    return int(str(found[0])) if found else 0


def _loop(stage: Stage) -> float:
    fetch = (
        "SELECT id, event_id, aggregate_id, type, payload::text, headers::text, attempts, created_at FROM outbox"
        " WHERE destination = 'null' AND processed_at IS NULL AND dead_at IS NULL AND available_at IS NULL AND id > %s"
        f" ORDER BY id LIMIT {BATCH}"
    )
    settle = "UPDATE outbox SET processed_at = clock_timestamp() WHERE id = ANY(%s)"
    with psycopg.connect(stage.url) as connection:
        begun, last = time.monotonic(), 0
        while rows := connection.execute(fetch, [last]).fetchall():
            connection.execute(settle, [[row[0] for row in rows]])
            connection.commit()
            last = rows[-1][0]
        return EVENTS / (time.monotonic() - begun)


def leaving(stage: Stage) -> Iterator[Measure]:
    """From the recording of an event to its delivery, at a steady 200 reservations a second."""
    stage.clear()
    alone = {"CONFIRMATION_URL": ""}  # no step in between: the event alone
    worker = stage.running("bin/worker", "--processes", "2", "--threads", "4", **alone)
    with stage.serving("api.app:create_app", PORT, **alone), worker, stage.running("bin/scheduler", **alone):
        asyncio.run(_reserve(seconds=3))
        stage_clock = time.time()
        asyncio.run(_reserve(seconds=LATENCY_SECONDS))
        with stage.connect() as connection:
            wait_until(lambda: pending(connection) == 0)
            found = connection.execute(
                "SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP"
                " (ORDER BY extract(epoch FROM processed_at - created_at) * 1000)"
                " FROM outbox WHERE destination = 'null' AND created_at > to_timestamp(%s)",
                [stage_clock],
            ).fetchone()
    assert found is not None
    p50, p99 = cast(Sequence[float], found[0])
    yield Measure(
        what=f"commit → delivered, {RATE} reservations/s",
        figure=f"p50 {p50:.0f} ms, p99 {p99:.0f} ms",
        budget="p50 ≤ 25 ms, p99 ≤ 100 ms",
        met=p50 <= 25 and p99 <= 100,
    )


async def _reserve(*, seconds: int) -> None:
    """Post at a steady rate, whether or not the earlier ones are answered."""
    run = secrets.token_hex(4)
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{PORT}", timeout=30) as client,
        asyncio.TaskGroup() as all_of_them,
    ):
        begun = time.monotonic()
        for n in range(RATE * seconds):
            await asyncio.sleep(max(0.0, begun + n / RATE - time.monotonic()))
            body = {"item_id": 1 + n, "quantity": 1}
            all_of_them.create_task(client.post("/reservations", json=body, headers={"Idempotency-Key": f"{run}-{n}"}))
