"""One aggregate of a thousand that fails for ever: what it costs the others."""

from collections.abc import Iterator, Sequence
from typing import cast
from uuid import UUID, uuid4

from benchmarks.environment import Environment, wait_until
from benchmarks.measure import Measure, compare_times, median
from benchmarks.outbox.recording import recording

AGGREGATES = 1_000

#: Events a second.
RATE = 200

#: The rounds with and without the failing aggregate take turns. A 99th percentile needs many events, and the median
#: many rounds.
ROUNDS = 5

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
    with_it, without = [], []
    for _ in range(ROUNDS):
        without.append(_p99(environment, fails=False))
        with_it.append(_p99(environment, fails=True))
    what = f"recorded → delivered to a webhook, p99 of the others while one of {AGGREGATES:,} aggregates fails"
    yield compare_times(what, median(with_it), median(without), named="while none fails", at_most=BUDGET)


def _p99(environment: Environment, *, fails: bool) -> float:
    """Run for a round and return the 99th percentile in milliseconds."""
    environment.clear()
    aggregates = [uuid4() for _ in range(AGGREGATES)]
    refused = aggregates[0]
    refuses = str(refused) if fails else ""
    receiver = environment.serving("benchmarks.outbox.receiver:create_app", PORT, RECEIVER_REFUSES=refuses)
    worker = environment.running("bin/worker", "--processes", "2", "--threads", "4")
    with receiver, worker, environment.running("bin/scheduler"):
        with recording(environment, aggregates, rate=RATE) as recorder:
            wait_until(lambda: recorder.recorded >= RATE * (WARM_UP_SECONDS + SECONDS))
        return _measured(environment, refused, fails=fails)


def _measured(environment: Environment, refused: UUID, *, fails: bool) -> float:
    """Return the 99th percentile, once the others are delivered and the failing one has failed more than once."""
    with environment.connect() as connection:
        wait_until(lambda: connection.execute(IS_OVER, {"refused": refused, "fails": fails}).fetchone() == (True,))
        found = connection.execute(
            "SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM processed_at - created_at) * 1000)"
            " FROM outbox WHERE aggregate_id <> %s AND created_at > (SELECT min(created_at) FROM outbox) + %s",
            [refused, f"{WARM_UP_SECONDS} s"],
        ).fetchone()
    assert found is not None
    return cast(Sequence[float], found)[0]


IS_OVER = """
    SELECT bool_and((processed_at IS NULL) = (%(fails)s AND aggregate_id = %(refused)s))
           AND (max(attempts) > 1) = %(fails)s
    FROM outbox
"""
