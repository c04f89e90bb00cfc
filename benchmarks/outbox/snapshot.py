"""A transaction that keeps its snapshot for minutes, so that no dead row can be vacuumed: what it costs the drain.

Events are recorded and drained in two databases of one server, at the same steady rate and at
the same time. In one of them a snapshot is open, and PostgreSQL keeps the dead rows of that
database only. At the end, with the snapshot still open, each database in turn drains a burst.
So both have had the same load, and a noisy moment affects both.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import uuid4

import psycopg

from benchmarks.environment import Environment, wait_until
from benchmarks.measure import Measure, compare, median
from benchmarks.outbox.draining import is_drained, rate, record
from benchmarks.outbox.recording import recording

OPEN_SECONDS = 300

#: Events a second.
RATE = 500

AGGREGATES = 10_000

#: The part of the steady rate that is measured: its end, when there are most dead rows.
LAST_SECONDS = 30

#: Bursts in each database, in turn. Each is recorded in one statement.
ROUNDS = 3

BURST = 50_000

BUDGET = 0.9


def snapshot(environment: Environment) -> Iterator[Measure]:
    """A steady rate and bursts with a snapshot open for minutes, against none."""
    free, held = environment, environment.with_database("snapshot")
    with ExitStack() as running:
        for one in (free, held):
            one.clear()
            running.enter_context(one.running("bin/worker", "--processes", "1", "--threads", "4"))
            running.enter_context(one.running("bin/scheduler"))
        with _open_snapshot(held):
            _record_steadily(free, held)
            yield _throughput(free, held)
            yield _latencies(free, held)
            yield _burst(free, held)


@contextmanager
def _open_snapshot(environment: Environment) -> Iterator[None]:
    with psycopg.connect(environment.url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT FROM outbox")
        yield
        connection.execute("SELECT FROM outbox_lanes LIMIT 1")  # fails if PostgreSQL has ended the transaction


def _record_steadily(free: Environment, held: Environment) -> None:
    """Record at the steady rate in both, until all of it is delivered."""
    aggregates = [uuid4() for _ in range(AGGREGATES)]
    with recording(free, aggregates, rate=RATE) as one, recording(held, aggregates, rate=RATE) as other:
        time.sleep(OPEN_SECONDS)
    recorded = min(one.recorded, other.recorded)
    assert recorded >= 0.98 * RATE * OPEN_SECONDS, f"only {recorded} events were recorded in {OPEN_SECONDS} s"
    for environment in (free, held):
        _wait_until_drained(environment)


def _wait_until_drained(environment: Environment) -> None:
    with environment.connect() as connection:
        wait_until(lambda: is_drained(connection), seconds=180)


def _throughput(free: Environment, held: Environment) -> Measure:
    """Report what was delivered while the last events were recorded: a drain that is too slow delivers less."""
    return compare(
        f"delivered events/s while {RATE}/s are recorded, a snapshot open for {OPEN_SECONDS} s",
        _delivered(held),
        _delivered(free),
        named="without it",
        at_least=BUDGET,
    )


def _delivered(environment: Environment) -> float:
    with environment.connect() as connection:
        found = connection.execute(
            "SELECT count(*)::float / %(seconds)s FROM outbox, (SELECT max(created_at) AS ends FROM outbox) AS last"
            " WHERE processed_at > ends - %(seconds)s * interval '1 second' AND processed_at <= ends",
            {"seconds": LAST_SECONDS},
        ).fetchone()
    assert found is not None
    return float(str(found[0]))


def _latencies(free: Environment, held: Environment) -> Measure:
    """Report how soon the last events of the steady rate were delivered."""
    (free_p50, free_p99), (p50, p99) = _latency(free), _latency(held)
    return Measure(
        what=f"recorded → delivered, {RATE} events/s, a snapshot open for {OPEN_SECONDS} s",
        measured=f"p50 {p50:.0f} ms, p99 {p99:.0f} ms",
        baseline=f"without it p50 {free_p50:.0f} ms, p99 {free_p99:.0f} ms",
        numbers={
            "p50_milliseconds": p50,
            "p99_milliseconds": p99,
            "baseline_p50_milliseconds": free_p50,
            "baseline_p99_milliseconds": free_p99,
        },
    )


def _latency(environment: Environment) -> tuple[float, float]:
    """Return the percentiles, in milliseconds, of the last events of the steady rate."""
    with environment.connect() as connection:
        found = connection.execute(
            "SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP"
            " (ORDER BY extract(epoch FROM processed_at - created_at) * 1000)"
            " FROM outbox WHERE created_at > (SELECT max(created_at) FROM outbox) - %s::interval",
            [f"{LAST_SECONDS} s"],
        ).fetchone()
    assert found is not None and isinstance(found[0], list)
    p50, p99 = found[0]
    return p50, p99


def _burst(free: Environment, held: Environment) -> Measure:
    without, with_snapshot = [], []
    for _ in range(ROUNDS):
        without.append(_drain(free))
        with_snapshot.append(_drain(held))
    return compare(
        f"events/s of a burst of {BURST:,} drained at the end, the snapshot still open",
        median(with_snapshot),
        median(without),
        named="without it",
        at_least=BUDGET,
    )


def _drain(environment: Environment) -> float:
    """Record a burst and wait until it is delivered. Return events/s."""
    with environment.connect() as connection:
        found = connection.execute("SELECT coalesce(max(id), 0)::bigint FROM outbox").fetchone()
        assert found is not None
        record(connection, BURST)
        connection.execute("ANALYZE outbox")
        wait_until(lambda: is_drained(connection), seconds=180)
        return rate(connection, after=int(str(found[0])))
