"""The same no-op work by other queues on the same PostgreSQL, each used as its own documents recommend.

Each of them, ours included, drains in one process what was enqueued before, with the
durability that it has by default. The rows that it writes show how long it took: from the
first event that it settled to the last one, by the database's clock. Ours keeps the order
of each aggregate and fences every settlement; the others need keep no order.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import psycopg

from benchmarks.environment import Environment
from benchmarks.measure import Measure, compare, median
from benchmarks.outbox.draining import drain, fill
from domain.runtime.settings import ROOT

ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Another queue, with the settings that are tried: it is compared at its best one.

    Ours must be `budget` times as fast. `jobs` keep the rival busy for some seconds, `trial` jobs for long enough to
    show which setting is best. `settled` is the SQL for the time at which each job was settled.
    """

    name: str
    package: str
    driver: str
    budget: int
    jobs: int
    trial: int
    settings: Sequence[Mapping[str, int]]
    settled: str


RIVALS = (
    Rival(
        name="PgQueuer",
        package="pgqueuer",
        # Its documents call asyncpg the faster driver. It is used where it is installed.
        driver="asyncpg" if find_spec("asyncpg") else "psycopg",
        budget=3,
        jobs=80_000,
        trial=30_000,
        # Its own benchmark has five consumers and batches of 10. For short jobs, its guide advises larger batches.
        settings=[{"consumers": 5, "batch": batch} for batch in (10, 100, 1_000)] + [{"consumers": 1, "batch": 1_000}],
        settled="SELECT created AS at FROM pgqueuer_log WHERE status = 'successful'",
    ),
    Rival(
        name="Procrastinate",
        package="procrastinate",
        driver="psycopg",
        budget=100,
        jobs=4_000,
        trial=1_000,
        settings=[{"concurrency": concurrency} for concurrency in (1, 5, 10, 30)],
        settled="SELECT at FROM procrastinate_events WHERE type = 'succeeded'",
    ),
)

#: The jobs that were settled at the first moment are not counted: they had begun before it.
RATE = """
    WITH settled AS ({settled}), first AS (SELECT min(at) AS at FROM settled)
    SELECT count(*), count(*) FILTER (WHERE settled.at > first.at)
                     / extract(epoch FROM max(settled.at) - min(first.at))::float
    FROM settled, first
"""


def rivals(environment: Environment) -> Iterator[Measure]:
    """The drain of no-op work, against PgQueuer and Procrastinate."""
    for rival in RIVALS:
        if find_spec(rival.package):
            yield _compare(environment, rival)
        else:
            yield Measure(
                what=f"events/s drained, against {rival.name}",
                measured="not measured",
                baseline=f"{rival.name} is not installed: bin/install rivals",
                budget=f"≥ {rival.budget} ×",
            )


def _compare(environment: Environment, rival: Rival) -> Measure:
    best = max(rival.settings, key=lambda setting: _drained(environment, rival, setting, rival.trial))
    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(_drained(environment, rival, best, rival.jobs))
        fill(environment)
        ours.append(drain(environment)[0])
    chosen = ", ".join(f"{name} {value}" for name, value in best.items())
    return compare(
        f"events/s drained of no-op work, one process, against {rival.name}",
        median(ours),
        median(theirs),
        named=f"{rival.name} ({rival.driver}, {chosen})",
        at_least=rival.budget,
    )


def _drained(environment: Environment, rival: Rival, setting: Mapping[str, int], jobs: int) -> float:
    """Let a process of the rival enqueue jobs in a new database and drain them. Return jobs/s."""
    url = environment.empty_database(rival.package)
    arguments = [f"--{name}={value}" for name, value in setting.items()]
    command = [sys.executable, "-m", f"benchmarks.rivals.{rival.package}_drain", url, f"--jobs={jobs}", *arguments]
    subprocess.run(command, cwd=ROOT, check=True)
    with psycopg.connect(url) as connection:
        found = connection.execute(RATE.format(settled=rival.settled)).fetchone()
    assert found is not None and found[0] == jobs, f"{rival.name} settled {found} of {jobs} jobs"
    return float(found[1])
