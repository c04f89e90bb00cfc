"""One aggregate of a thousand that fails for ever: what it costs the others."""

from collections.abc import Iterator, Sequence
from typing import cast
from uuid import UUID, uuid4

from benchmarks.environment import Stage, wait_until
from benchmarks.measure import Measure, median
from benchmarks.recording import recording

AGGREGATES = 1_000

RATE = 200

#: In turn with and without the failing one. A 99th percentile needs many events, and the median many rounds.
ROUNDS = 5

SECONDS = 20

#: What a round measures begins after this time, when all processes are warm.
WARM_UP_SECONDS = 3

BUDGET = 1.1

PORT = 8102

#: It never gives up: a dead row would end the trouble.
ROUTES = f"""
[[destination]]
name = "webhook"
url = "http://127.0.0.1:{PORT}/"
events = ["booking.*"]
max_attempts = 1000
"""


def failing(stage: Stage) -> Iterator[Measure]:
    """The others' 99th percentile, from the recording of an event to its settling, at a steady rate."""
    stage = stage.routing("failing", ROUTES)
    with_it, without = [], []
    for _ in range(ROUNDS):
        without.append(_p99(stage, fails=False))
        with_it.append(_p99(stage, fails=True))
    ratio = median(with_it) / median(without)
    yield Measure(
        what=f"recorded → delivered to a webhook, p99 of the others while one of {AGGREGATES:,} aggregates fails",
        figure=f"{median(with_it):.1f} ms",
        baseline=f"while none fails {median(without):.1f} ms: {ratio:.0%}",
        budget=f"≤ {BUDGET:.0%}",
        met=ratio <= BUDGET,
    )


def _p99(stage: Stage, *, fails: bool) -> float:
    """Run for a round and return the 99th percentile in milliseconds."""
    stage.clear()
    aggregates = [uuid4() for _ in range(AGGREGATES)]
    refused = aggregates[0]
    receiver = stage.serving("benchmarks.receiver:create_app", PORT, RECEIVER_REFUSES=str(refused) if fails else "")
    worker = stage.running("bin/worker", "--processes", "2", "--threads", "4")
    with receiver, worker, stage.running("bin/scheduler"):
        with recording(stage, aggregates, rate=RATE) as recorder:
            wait_until(lambda: recorder.recorded >= RATE * (WARM_UP_SECONDS + SECONDS))
        return _measured(stage, refused, fails=fails)


def _measured(stage: Stage, refused: UUID, *, fails: bool) -> float:
    """Return the 99th percentile, once the others are delivered and the one has failed more than once."""
    with stage.connect() as connection:
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
