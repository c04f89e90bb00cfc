"""Workers that are killed while they deliver: how soon other workers have delivered the rows that were leased."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from subprocess import Popen
from uuid import uuid4

import psutil

from benchmarks.environment import Connection, Environment, wait_until
from benchmarks.measure import Measure, median
from benchmarks.outbox.recording import recording

KILLS = 50

#: A time, not a ratio: the protocol bounds it, on every machine.
BUDGET_SECONDS = 1.0

#: Events a second. One worker alone can deliver them, so the survivor has no backlog when the other one is killed.
RATE = 60

AGGREGATES = 1_000

PORT = 8103

#: Each delivery takes so long that a worker nearly always has rows in flight.
DELIVERY_SECONDS = 0.1

ROUTES = f"""
[[destination]]
name = "webhook"
url = "http://127.0.0.1:{PORT}/"
events = ["booking.*"]
batch_size = 20
concurrency = 16
"""


def recovering(environment: Environment) -> Iterator[Measure]:
    """The time from kill -9 of a worker until all that it had leased is delivered."""
    environment = environment.with_routes("recovering", ROUTES)
    environment.clear()
    receiver = environment.serving(
        "benchmarks.outbox.receiver:create_app", PORT, RECEIVER_SECONDS=str(DELIVERY_SECONDS)
    )
    with receiver, environment.running("bin/scheduler"), ExitStack() as workers:
        times = sorted(_times(environment, workers))
    p50 = median(times)
    # With fifty kills, the nearest rank of the 99th percentile is the slowest one.
    p99 = times[math.ceil(0.99 * len(times)) - 1]
    yield Measure(
        what=f"from kill -9 of a worker until all that it had leased is delivered, {len(times)} kills",
        measured=f"p50 {p50:.2f} s, p99 {p99:.2f} s",
        budget=f"p99 ≤ {BUDGET_SECONDS:g} s",
        met=p99 <= BUDGET_SECONDS,
        numbers={"p50_seconds": p50, "p99_seconds": p99, "budget": BUDGET_SECONDS},
    )


def _times(environment: Environment, workers: ExitStack) -> Sequence[float]:
    """Kill one of two workers; when its rows are delivered, kill the other one; and so on. Return each time in seconds.

    A time is the database's: from just before the kill until the last row was settled that was pending in a lane
    which the killed process had leased. Nothing is recorded meanwhile, so only the scheduler sends wake-ups. Another
    worker is started at once in place of the killed one.
    """

    def start() -> Popen[bytes]:
        return workers.enter_context(environment.running("bin/worker", "--processes", "1", "--threads", "4"))

    running = [start(), start()]
    times: list[float] = []
    aggregates = [uuid4() for _ in range(AGGREGATES)]
    with recording(environment, aggregates, rate=RATE) as recorder, environment.connect() as connection:
        while len(times) < KILLS:
            recorder.resume()
            wait_until(partial(_have_rows, connection, running))
            target, survivor = running
            moment, rows = _kill(connection, target)
            recorder.pause()
            running = [survivor, start()]
            if rows:  # without rows, the kill came between two lanes and shows nothing
                times.append(_settled_after(connection, rows, moment))
    return times


def _have_rows(connection: Connection, workers: Sequence[Popen[bytes]]) -> bool:
    """Return whether each of these workers has pending rows in its lanes."""
    return all(_leased_rows(connection, _pids(worker)) for worker in workers)


def _kill(connection: Connection, worker: Popen[bytes]) -> tuple[datetime, Sequence[int]]:
    """Kill a worker with all its processes. Return when, by the database's clock, and the rows that it had leased."""
    pids = _pids(worker)
    found = connection.execute("SELECT clock_timestamp()").fetchone()
    assert found is not None and isinstance(found[0], datetime)
    for pid in pids:
        psutil.Process(pid).kill()
    worker.wait()
    # No other worker can have claimed its lanes yet: their leases last for seconds.
    return found[0], _leased_rows(connection, pids)


def _pids(worker: Popen[bytes]) -> Sequence[int]:
    return [worker.pid, *(child.pid for child in psutil.Process(worker.pid).children(recursive=True))]


def _leased_rows(connection: Connection, pids: Collection[int]) -> Sequence[int]:
    """Return the rows that are pending in the lanes which these processes have leased."""
    found = connection.execute(
        "SELECT outbox.id FROM outbox JOIN outbox_lanes USING (destination, lane)"
        " WHERE processed_at IS NULL AND dead_at IS NULL AND leased_until > clock_timestamp()"
        " AND split_part(holder, ':', 2)::int = ANY(%s)",
        [list(pids)],
    )
    return [int(str(row[0])) for row in found]


def _settled_after(connection: Connection, rows: Sequence[int], moment: datetime) -> float:
    """Wait until these rows are settled. Return how many seconds after that moment the last one was."""
    statement = (
        "SELECT extract(epoch FROM max(processed_at) - %s)::float, count(processed_at) FROM outbox WHERE id = ANY(%s)"
    )
    found: tuple[object, ...] = (0.0, 0)

    def are_settled() -> bool:
        nonlocal found
        found = connection.execute(statement, [moment, list(rows)]).fetchone() or found
        return found[1] == len(rows)

    wait_until(are_settled)
    return float(str(found[0]))
