"""Workers that are killed while they deliver: how soon all that they had leased is received again, and delivered."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from subprocess import Popen
from typing import cast
from uuid import uuid4

import psutil

from benchmarks.environment import Connection, Environment, wait_until
from benchmarks.measure import Measure, median
from benchmarks.outbox.receiver import arrivals
from benchmarks.outbox.recording import recording

KILLS = 100

#: A time, not a ratio: the protocol bounds it, on every machine.
BUDGET_SECONDS = 1.0

#: Events a second. One worker alone can deliver them, so the survivor has no backlog when the other one is killed.
RATE = 60

AGGREGATES = 1_000

PORT = 8103

#: The receiver holds each call for so long that a worker nearly always has rows in flight.
DELIVERY_SECONDS = 0.1

ROUTES = f"""
[[destination]]
name = "webhook"
url = "http://127.0.0.1:{PORT}/"
events = ["booking.*"]
batch_size = 20
concurrency = 16
"""


@dataclass(frozen=True)
class Kill:
    """A worker was killed that had rows. `received` and `delivered` are the seconds until the last of them was so."""

    received: float
    delivered: float


def recovering(environment: Environment) -> Iterator[Measure]:
    """The time from kill -9 of a worker until all that it had leased is received again, and delivered."""
    environment = environment.with_routes("recovering", ROUTES)
    environment.clear()
    receiver = environment.serving(
        "benchmarks.outbox.receiver:create_app", PORT, RECEIVER_SECONDS=str(DELIVERY_SECONDS)
    )
    with receiver, environment.running("bin/scheduler"), ExitStack() as workers:
        kills = _kills(environment, workers)
    yield _measure("received again", [kill.received for kill in kills])
    yield _measure("delivered", [kill.delivered for kill in kills])


def _measure(what: str, times: Sequence[float]) -> Measure:
    # With a hundred kills, the nearest rank of the 99th percentile is the slowest but one.
    p50, p99 = median(times), sorted(times)[math.ceil(0.99 * len(times)) - 1]
    return Measure(
        what=f"from kill -9 of a worker until all that it had leased is {what}, {len(times)} kills",
        measured=f"p50 {p50:.2f} s, p99 {p99:.2f} s",
        budget=f"p99 ≤ {BUDGET_SECONDS:g} s",
        met=p99 <= BUDGET_SECONDS,
        numbers={"p50_seconds": p50, "p99_seconds": p99, "budget": BUDGET_SECONDS},
    )


def _kills(environment: Environment, workers: ExitStack) -> Sequence[Kill]:
    """Kill one of two workers; when its rows are delivered, kill the other one; and so on.

    Nothing is recorded between a kill and the delivery, so only the scheduler sends wake-ups. Another worker is started
    at once in place of the killed one.
    """

    def start() -> Popen[bytes]:
        return workers.enter_context(environment.running("bin/worker", "--processes", "1", "--threads", "4"))

    running = [start(), start()]
    kills: list[Kill] = []
    aggregates = [uuid4() for _ in range(AGGREGATES)]
    with recording(environment, aggregates, rate=RATE) as recorder, environment.connect() as connection:
        while len(kills) < KILLS:
            recorder.resume()
            wait_until(partial(_have_rows, connection, running))
            target, survivor = running
            recorder.pause()
            moment, rows = _kill(connection, target)
            running = [survivor, start()]
            wait_until(partial(_are_delivered, connection, rows))
            kills.extend(_seen(connection, rows, moment))
    return kills


def _have_rows(connection: Connection, workers: Sequence[Popen[bytes]]) -> bool:
    """Return whether each of these workers has pending rows in its lanes."""
    return all(_leased_rows(connection, _pids(worker)) for worker in workers)


def _kill(connection: Connection, worker: Popen[bytes]) -> tuple[float, Sequence[int]]:
    """Kill a worker with all its processes. Return when, by the monotonic clock, and the rows that it had leased.

    It is frozen for a moment before: so these are its rows at the kill, and no other worker has taken one over yet.
    """
    pids = _pids(worker)
    for pid in pids:
        psutil.Process(pid).suspend()
    rows = _leased_rows(connection, pids)
    moment = time.monotonic()
    for pid in pids:
        psutil.Process(pid).kill()
    worker.wait()
    return moment, rows


def _pids(worker: Popen[bytes]) -> Sequence[int]:
    return [worker.pid, *(child.pid for child in psutil.Process(worker.pid).children(recursive=True))]


def _leased_rows(connection: Connection, pids: Sequence[int]) -> Sequence[int]:
    """Return the rows that are pending in the lanes which these processes have leased."""
    found = connection.execute(
        "SELECT outbox.id FROM outbox JOIN outbox_lanes USING (destination, lane)"
        " WHERE processed_at IS NULL AND dead_at IS NULL AND leased_until > clock_timestamp()"
        " AND split_part(holder, ':', 2)::int = ANY(%s)",
        [pids],
    )
    return [int(str(row[0])) for row in found]


def _are_delivered(connection: Connection, rows: Sequence[int]) -> bool:
    found = connection.execute("SELECT count(processed_at) FROM outbox WHERE id = ANY(%s)", [rows]).fetchone()
    return found == (len(rows),)


def _seen(connection: Connection, rows: Sequence[int], moment: float) -> Sequence[Kill]:
    """Return when the rows were received and delivered. Return nothing if none was received after the kill.

    Then PostgreSQL was already committing them, or the kill came between two lanes.
    """
    last = connection.execute(
        "SELECT array_agg(event_id::text), extract(epoch FROM clock_timestamp() - max(processed_at))::float"
        " FROM outbox WHERE id = ANY(%s)",
        [rows],
    ).fetchone()
    assert last is not None
    delivered = time.monotonic() - float(str(last[1])) if rows else 0
    arrived = arrivals(PORT)
    received = [arrived[event] for event in cast(Sequence[str], last[0] or ()) if arrived[event] > moment]
    return [Kill(max(received) - moment, delivered - moment)] if received else []
