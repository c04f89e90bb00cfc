"""Workers that are killed with their hands full: how soon others have delivered what they held."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from subprocess import Popen
from uuid import uuid4

import psutil
import psycopg

from benchmarks.environment import Stage, wait_until
from benchmarks.measure import Measure, median
from benchmarks.recording import recording

KILLS = 50

BUDGET_SECONDS = 6.0

#: What one worker can deliver, so that the survivor is not behind when the next one dies.
RATE = 60

AGGREGATES = 1_000

PORT = 8103

#: Each delivery takes so long that a worker nearly always has some in hand.
DELIVERY_SECONDS = 0.1

ROUTES = f"""
[[destination]]
name = "webhook"
url = "http://127.0.0.1:{PORT}/"
events = ["booking.*"]
batch_size = 20
concurrency = 16
"""

Connection = psycopg.Connection[tuple[object, ...]]


def recovering(stage: Stage) -> Iterator[Measure]:
    """Kill one of two workers, and when what it held is delivered the other one, and so on.

    The time is the database's, from just before the kill until the last row was settled
    that was pending in a lane that the killed process held. Meanwhile nothing is recorded,
    so the scheduler alone rings; the killed worker is started again at once.
    """
    stage = stage.routing("recovering", ROUTES)
    stage.clear()
    receiver = stage.serving("benchmarks.receiver:create_app", PORT, RECEIVER_SECONDS=str(DELIVERY_SECONDS))
    with receiver, stage.running("bin/scheduler"), ExitStack() as workers:
        times = sorted(_times(stage, workers))
    # Of fifty the nearest rank of the 99th percentile is the slowest.
    p99 = times[math.ceil(0.99 * len(times)) - 1]
    yield Measure(
        what=f"from kill -9 of a worker until all that it held is delivered, {len(times)} kills",
        figure=f"p50 {median(times):.2f} s, p99 {p99:.2f} s",
        budget=f"p99 ≤ {BUDGET_SECONDS:.0f} s",
        met=p99 <= BUDGET_SECONDS,
    )


def _times(stage: Stage, workers: ExitStack) -> Sequence[float]:
    """Return how many seconds each recovery took."""

    def start() -> Popen[bytes]:
        return workers.enter_context(stage.running("bin/worker", "--processes", "1", "--threads", "4"))

    running = [start(), start()]
    times: list[float] = []
    aggregates = [uuid4() for _ in range(AGGREGATES)]
    with recording(stage, aggregates, rate=RATE) as recorder, stage.connect() as connection:
        while len(times) < KILLS:
            recorder.go_on()
            victim, survivor = running
            wait_until(lambda pair=(victim, survivor): all(_in_hand(connection, _pids(one)) for one in pair))
            moment, in_hand = _kill(connection, victim)
            recorder.pause()
            running = [survivor, start()]
            if in_hand:  # and it was not between two lanes at that moment
                times.append(_settled_after(connection, in_hand, moment))
    return times


def _kill(connection: Connection, worker: Popen[bytes]) -> tuple[datetime, Sequence[int]]:
    """Kill a worker with all its processes. Return when, by the database's clock, and the rows that it held."""
    pids = _pids(worker)
    found = connection.execute("SELECT clock_timestamp()").fetchone()
    assert found is not None and isinstance(found[0], datetime)
    for pid in pids:
        psutil.Process(pid).kill()
    worker.wait()
    # Nobody can have claimed its lanes yet: their leases last for seconds.
    return found[0], _in_hand(connection, pids)


def _pids(worker: Popen[bytes]) -> Sequence[int]:
    return [worker.pid, *(child.pid for child in psutil.Process(worker.pid).children(recursive=True))]


def _in_hand(connection: Connection, pids: Collection[int]) -> Sequence[int]:
    """Return the rows that are pending in the lanes that these processes hold."""
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
