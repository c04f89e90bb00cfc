"""Forty webhooks of fifty that hang: what they cost the other ten."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import cast
from uuid import uuid4

from benchmarks.environment import Connection, Environment, wait_until
from benchmarks.measure import Measure, compare_times, median
from benchmarks.outbox.draining import workers
from benchmarks.outbox.recording import recording

HEALTHY, HANGING = 10, 40

AGGREGATES = 100

#: Events a second, each of which goes to all destinations.
RATE = 5

#: The rounds with and without those that hang take turns.
ROUNDS = 3

SECONDS = 30

#: What a round measures begins after this time: all processes are warm, and calls have hung until their time-out.
WARM_UP_SECONDS = 15

#: A receiver that hangs answers after this time. No call waits for so long.
HANGING_SECONDS = 120

BUDGET = 1.5

PORT, HANGING_PORT = 8103, 8104

ROUTE = """
[[destination]]
name = "{name}-{number}"
url = "http://127.0.0.1:{port}/{number}"
events = ["booking.*"]
"""


def hanging(environment: Environment) -> Iterator[Measure]:
    """Delivery to ten webhooks while forty others hang, against those ten alone."""
    healthy = "".join(ROUTE.format(name="healthy", number=number, port=PORT) for number in range(HEALTHY))
    others = "".join(ROUTE.format(name="hanging", number=number, port=HANGING_PORT) for number in range(HANGING))
    beside, alone = [], []
    for _ in range(ROUNDS):
        alone.append(_p99(environment.with_routes("healthy", healthy)))
        beside.append(_p99(environment.with_routes("hanging", healthy + others)))
    what = f"recorded → delivered to {HEALTHY} webhooks, p99 while {HANGING} others hang"
    yield compare_times(what, median(beside), median(alone), named="alone", at_most=BUDGET)


def _p99(environment: Environment) -> float:
    """Run for a round and return the 99th percentile of the healthy ones in milliseconds."""
    environment.clear()
    with ExitStack() as stack:
        stack.enter_context(environment.serving("benchmarks.outbox.receiver:create_app", PORT))
        slow = {"RECEIVER_SECONDS": f"{HANGING_SECONDS}"}
        # Not `serving`: it would wait for an answer.
        command = "-m", "benchmarks.serve", "benchmarks.outbox.receiver:create_app", f"{HANGING_PORT}"
        stack.enter_context(environment.running("bin/python", *command, **slow))
        connection = stack.enter_context(workers(environment, processes=1))
        with recording(environment, [uuid4() for _ in range(AGGREGATES)], rate=RATE) as recorder:
            wait_until(lambda: recorder.recorded >= RATE * (WARM_UP_SECONDS + SECONDS), seconds=300)
        return _measured(connection)


def _measured(connection: Connection) -> float:
    wait_until(lambda: connection.execute(IS_DELIVERED).fetchone() == (True,), seconds=300)
    found = connection.execute(PERCENTILE, [f"{WARM_UP_SECONDS} s"]).fetchone()
    assert found is not None
    return cast(Sequence[float], found)[0]


IS_DELIVERED = "SELECT bool_and(processed_at IS NOT NULL) FROM outbox WHERE destination LIKE 'healthy-%'"
PERCENTILE = """
    SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM processed_at - created_at) * 1000)
    FROM outbox
    WHERE destination LIKE 'healthy-%%' AND created_at > (SELECT min(created_at) FROM outbox) + %s::interval
"""
