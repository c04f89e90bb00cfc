"""A transaction that holds its snapshot for minutes, so that nothing dead can be cleared away: what it costs the drain.

Two databases of the same server are recorded and drained at the same steady rate at the
same time, one of them under a held snapshot: PostgreSQL keeps for a snapshot what died in
its own database only. At the end, with the snapshot still open, a burst is drained by
either in turn. So both have lived through the same, and a noisy moment hits both.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import uuid4

import psycopg

from benchmarks.draining import drained, pending, record
from benchmarks.environment import Stage, wait_until
from benchmarks.measure import Measure, median
from benchmarks.recording import recording

HELD_SECONDS = 300

RATE = 500

AGGREGATES = 10_000

#: What is measured of the steady rate: its end, when most has piled up.
LAST_SECONDS = 30

#: Bursts of each, in turn; recorded in one statement.
ROUNDS = 3

BURST = 50_000

BUDGET = 0.9


def snapshot(stage: Stage) -> Iterator[Measure]:
    """The steady rate and the bursts, with and without the snapshot."""
    free, held = stage, stage.beside("snapshot")
    with ExitStack() as running:
        for one in (free, held):
            one.clear()
            running.enter_context(one.running("bin/worker", "--processes", "1", "--threads", "4"))
            running.enter_context(one.running("bin/scheduler"))
        with _holding(held):
            _live_through(free, held)
            yield _throughput(free, held)
            yield _soon(free, held)
            yield _burst(free, held)


@contextmanager
def _holding(stage: Stage) -> Iterator[None]:
    with psycopg.connect(stage.url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT FROM outbox")
        yield
        connection.execute("SELECT FROM outbox_lanes LIMIT 1")  # it is still open


def _live_through(free: Stage, held: Stage) -> None:
    """Record at the steady rate in both, until all of it is delivered."""
    aggregates = [uuid4() for _ in range(AGGREGATES)]
    with recording(free, aggregates, rate=RATE) as one, recording(held, aggregates, rate=RATE) as other:
        time.sleep(HELD_SECONDS)
    recorded = min(one.recorded, other.recorded)
    assert recorded >= 0.98 * RATE * HELD_SECONDS, f"only {recorded} events were recorded in {HELD_SECONDS} s"
    for stage in (free, held):
        _wait_until_drained(stage)


def _wait_until_drained(stage: Stage) -> None:
    with stage.connect() as connection:
        wait_until(lambda: pending(connection) == 0, seconds=180)


def _throughput(free: Stage, held: Stage) -> Measure:
    """Report what was delivered while the last events were recorded: a drain that falls behind delivers less."""
    without, with_it = _delivered(free), _delivered(held)
    return Measure(
        what=f"delivered events/s while {RATE}/s are recorded, a snapshot held for {HELD_SECONDS} s",
        figure=f"{with_it:,.0f}",
        baseline=f"without it {without:,.0f}: {with_it / without:.0%}",
        budget=f"≥ {BUDGET:.0%}",
        met=with_it >= BUDGET * without,
    )


def _delivered(stage: Stage) -> float:
    with stage.connect() as connection:
        found = connection.execute(
            "SELECT count(*)::float / %(seconds)s FROM outbox, (SELECT max(created_at) AS ends FROM outbox) AS last"
            " WHERE processed_at > ends - %(seconds)s * interval '1 second' AND processed_at <= ends",
            {"seconds": LAST_SECONDS},
        ).fetchone()
    assert found is not None
    return float(str(found[0]))


def _soon(free: Stage, held: Stage) -> Measure:
    """Report how soon the last events of the steady rate were delivered."""
    (free_p50, free_p99), (p50, p99) = _latency(free), _latency(held)
    return Measure(
        what=f"recorded → delivered, {RATE} events/s, a snapshot held for {HELD_SECONDS} s",
        figure=f"p50 {p50:.0f} ms, p99 {p99:.0f} ms",
        baseline=f"without it p50 {free_p50:.0f} ms, p99 {free_p99:.0f} ms",
    )


def _latency(stage: Stage) -> tuple[float, float]:
    """Return the percentiles, in milliseconds, of the last events of the steady rate."""
    with stage.connect() as connection:
        found = connection.execute(
            "SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP"
            " (ORDER BY extract(epoch FROM processed_at - created_at) * 1000)"
            " FROM outbox WHERE created_at > (SELECT max(created_at) FROM outbox) - %s::interval",
            [f"{LAST_SECONDS} s"],
        ).fetchone()
    assert found is not None and isinstance(found[0], list)
    p50, p99 = found[0]
    return p50, p99


def _burst(free: Stage, held: Stage) -> Measure:
    without, with_it = [], []
    for _ in range(ROUNDS):
        without.append(_drained(free))
        with_it.append(_drained(held))
    ratio = median(with_it) / median(without)
    return Measure(
        what=f"events/s of {BURST:,} drained at the end, the snapshot still held",
        figure=f"{median(with_it):,.0f}",
        baseline=f"without it {median(without):,.0f}: {ratio:.0%}",
        budget=f"≥ {BUDGET:.0%}",
        met=ratio >= BUDGET,
    )


def _drained(stage: Stage) -> float:
    """Record a burst and wait until it is delivered. Return events/s."""
    with stage.connect() as connection:
        found = connection.execute("SELECT coalesce(max(id), 0)::bigint FROM outbox").fetchone()
        assert found is not None
        record(connection, BURST)
        connection.execute("ANALYZE outbox")
        wait_until(lambda: pending(connection) == 0, seconds=180)
        return drained(connection, after=int(str(found[0])))
