"""One aggregate of a thousand that fails for ever, in one way or another: what it costs the others."""

from collections.abc import Iterator, Sequence
from typing import cast
from uuid import UUID, uuid4

from benchmarks.environment import Connection, Environment, wait_until
from benchmarks.measure import Measure, compare_times, median
from benchmarks.outbox.draining import workers
from benchmarks.outbox.receiver import NO_ANSWER, counted
from benchmarks.outbox.recording import recording

AGGREGATES = 1_000

#: Events a second.
RATE = 200

#: What the failing aggregate is answered.
FAILURES = {"gets 500": 500, "gets 429": 429, "is never answered": NO_ANSWER}

#: The rounds without a failing aggregate and with each kind of failure take turns.
ROUNDS = 3

SECONDS = 20

#: What a round measures begins after this time, when all processes are warm.
WARM_UP_SECONDS = 3

BUDGET = 1.1

PORT = 8102

#: The failing aggregate's row never becomes a dead letter: a dead row would end the trouble.
ROUTES = f"""
[[destination]]
name = "webhook"
url = "http://127.0.0.1:{PORT}/"
events = ["booking.*"]
max_attempts = 1000
"""


def failing(environment: Environment) -> Iterator[Measure]:
    """Delivery to a webhook while one aggregate fails for ever, against none."""
    environment = environment.with_routes("failing", ROUTES)
    without: list[float] = []
    with_it: dict[str, list[float]] = {name: [] for name in FAILURES}
    for _ in range(ROUNDS):
        without.append(_p99(environment))
        for name, status in FAILURES.items():
            with_it[name].append(_p99(environment, status))
    for name, times in with_it.items():
        what = f"recorded → delivered to a webhook, p99 of the others while one of {AGGREGATES:,} aggregates {name}"
        yield compare_times(what, median(times), median(without), named="while none fails", at_most=BUDGET)


def _p99(environment: Environment, status: int | None = None) -> float:
    """Run for a round and return the 99th percentile in milliseconds. With a status, one aggregate fails."""
    environment.clear()
    aggregates = [uuid4() for _ in range(AGGREGATES)]
    # Not the first one: of a destination that has never taken an event, nobody knows whether it is down.
    refused, fails = aggregates[AGGREGATES // 2], status is not None
    settings = {"RECEIVER_REFUSES": str(refused), "RECEIVER_STATUS": str(status)} if fails else {}
    receiver = environment.serving("benchmarks.outbox.receiver:create_app", PORT, **settings)
    with receiver, workers(environment, processes=2) as connection:
        with recording(environment, aggregates, rate=RATE) as recorder:
            wait_until(lambda: recorder.recorded >= RATE * (WARM_UP_SECONDS + SECONDS))
        return _measured(connection, refused, fails=fails)


def _measured(connection: Connection, refused: UUID, *, fails: bool) -> float:
    """Return the 99th percentile, once the others are delivered and the failing one was called more than once."""
    wait_until(lambda: connection.execute(IS_OVER, {"refused": refused, "fails": fails}).fetchone() == (True,))
    wait_until(lambda: not fails or counted(PORT).refused > 1)
    found = connection.execute(
        "SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM processed_at - created_at) * 1000)"
        " FROM outbox WHERE aggregate_id <> %s AND created_at > (SELECT min(created_at) FROM outbox) + %s",
        [refused, f"{WARM_UP_SECONDS} s"],
    ).fetchone()
    assert found is not None
    return cast(Sequence[float], found)[0]


IS_OVER = """
    SELECT bool_and((processed_at IS NULL) = (%(fails)s AND aggregate_id = %(refused)s)) FROM outbox
"""
