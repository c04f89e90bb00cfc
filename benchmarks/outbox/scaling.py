"""More worker processes: they drain no slower than one, and cost next to nothing while there is nothing to do."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.environment import Connection, Environment, wait_until
from benchmarks.measure import Measure, compare, median
from benchmarks.outbox.draining import connections, drain, fill
from worker.scheduler import EVERY

ROUNDS = 3

PROCESSES = 4

IDLE_PROCESSES = 32

#: How long the idle processes are observed.
IDLE_SECONDS = 30

#: The statements that all of them together may send for each wake-up of the scheduler.
IDLE_BUDGET = 33


def scaling(environment: Environment) -> Iterator[Measure]:
    """The drain by four worker processes, against one."""
    one, four = [], []
    for _ in range(ROUNDS):
        fill(environment)
        one.append(drain(environment)[0])
        fill(environment)
        four.append(drain(environment, processes=PROCESSES)[0])
    yield compare(
        f"events/s drained by {PROCESSES} worker processes on {os.cpu_count()} cores",
        median(four),
        median(one),
        named="one process",
        at_least=1,
    )


def idling(environment: Environment) -> Iterator[Measure]:
    """The statements of idle workers and a scheduler, for each wake-up."""
    environment.clear()
    workers = environment.running("bin/worker", "--processes", str(IDLE_PROCESSES), "--threads", "4")
    with workers, environment.connect() as connection:
        wait_until(lambda: connections(connection) >= IDLE_PROCESSES, seconds=180)
        with environment.running("bin/scheduler"), _logging(connection):
            statements, seconds = _observe(environment)
    assert statements > 0, "nothing was logged: the workers are not idle but gone"
    wakeups = seconds * sum(1 / every for every in EVERY.values())
    ratio = statements / wakeups
    yield Measure(
        what=f"statements a wake-up, of {IDLE_PROCESSES} idle worker processes and a scheduler",
        measured=f"{ratio:.1f}",
        baseline=f"{wakeups / seconds:.1f} wake-ups/s",
        budget=f"≤ {IDLE_BUDGET}",
        met=ratio <= IDLE_BUDGET,
        numbers={
            "measured": statements / wakeups,
            "statements_per_second": statements / seconds,
            "budget": IDLE_BUDGET,
        },
    )


def _observe(environment: Environment) -> tuple[int, float]:
    """Return how many statements PostgreSQL logs in IDLE_SECONDS, BEGIN and COMMIT included, and the exact time.

    Only workers and the scheduler are connected to it and send something.
    """
    log = environment.postgresql.home / "log"
    begun, size = time.monotonic(), log.stat().st_size
    time.sleep(IDLE_SECONDS)
    return len(STATEMENT.findall(log.read_bytes()[size:])), time.monotonic() - begun


#: A line of PostgreSQL's log that begins a statement, by either of its protocols.
STATEMENT = re.compile(rb"LOG:  (?:statement|execute [^:]+): ")


@contextmanager
def _logging(connection: Connection) -> Iterator[None]:
    """Let PostgreSQL log all statements while the block runs."""
    connection.execute("ALTER SYSTEM SET log_statement = 'all'")
    connection.execute("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: connection.execute("SHOW log_statement").fetchone() == ("all",))
        yield
    finally:
        connection.execute("ALTER SYSTEM RESET log_statement")
        connection.execute("SELECT pg_reload_conf()")
