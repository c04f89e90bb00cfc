"""More worker processes: they drain no slower than one, and cost next to nothing while there is nothing to do."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from benchmarks.draining import drain, fill
from benchmarks.environment import Stage, wait_until
from benchmarks.measure import Measure, median

ROUNDS = 3

PROCESSES = 4

IDLE_PROCESSES = 32

#: How long they are watched, and how many statements a second they may send meanwhile.
IDLE_SECONDS = 30

IDLE_BUDGET = 50


def scaling(stage: Stage) -> Iterator[Measure]:
    """One process and four on the same events, in turn."""
    one, four = [], []
    for _ in range(ROUNDS):
        fill(stage)
        one.append(drain(stage)[0])
        fill(stage)
        four.append(drain(stage, processes=PROCESSES)[0])
    ratio = median(four) / median(one)
    yield Measure(
        what=f"events/s drained by {PROCESSES} worker processes on {os.cpu_count()} cores",
        figure=f"{median(four):,.0f}",
        baseline=f"one process {median(one):,.0f}: {ratio:.0%}",
        budget="≥ 100 %",
        met=ratio >= 1,
    )


def idling(stage: Stage) -> Iterator[Measure]:
    """Count what PostgreSQL is told to do by idle workers and a scheduler.

    It writes each statement of the database, BEGIN and COMMIT included, into its log
    (`log_statement`), and the lines are counted. Nothing else is connected to it.
    """
    stage.clear()
    workers = stage.running("bin/worker", "--processes", str(IDLE_PROCESSES), "--threads", "4")
    with workers, stage.connect() as connection:
        wait_until(lambda: _connected(connection) >= IDLE_PROCESSES, seconds=180)
        with stage.running("bin/scheduler"), _logging(connection):
            log = stage.postgresql.home / "log"
            begun, size = time.monotonic(), log.stat().st_size
            time.sleep(IDLE_SECONDS)
            statements = len(STATEMENT.findall(log.read_bytes()[size:]))
            rate = statements / (time.monotonic() - begun)
    assert statements > 0, "nothing was logged: the workers are not idle but gone"
    yield Measure(
        what=f"statements/s of {IDLE_PROCESSES} idle worker processes and a scheduler",
        figure=f"{rate:.1f}",
        budget=f"< {IDLE_BUDGET}",
        met=rate < IDLE_BUDGET,
    )


#: A line of PostgreSQL's log that begins a statement, by either of its protocols.
STATEMENT = re.compile(rb"LOG:  (?:statement|execute [^:]+): ")


def _connected(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    """Return how many connections workers have: one each, once it has started."""
    found = connection.execute("SELECT count(*)::int FROM pg_stat_activity WHERE application_name = 'holdfast'")
    return int(str((found.fetchone() or (0,))[0]))


@contextmanager
def _logging(connection: psycopg.Connection[tuple[object, ...]]) -> Iterator[None]:
    """Have PostgreSQL log all statements while the block runs."""
    connection.execute("ALTER SYSTEM SET log_statement = 'all'")
    connection.execute("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: connection.execute("SHOW log_statement").fetchone() == ("all",))
        yield
    finally:
        connection.execute("ALTER SYSTEM RESET log_statement")
        connection.execute("SELECT pg_reload_conf()")
