"""The same no-op work by other queues on the same PostgreSQL, each used as its own documents recommend.

Every one of them, ours included, drains in one process what was enqueued before, with
the durability that it has by default, and is measured by what it wrote: from the first
event that it settled to the last one, by the database's clock. Ours keeps the order of
each aggregate and fences every settling; of theirs no order is asked.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import psycopg

from benchmarks.draining import drain, fill
from benchmarks.environment import Stage
from benchmarks.measure import Measure, median
from domain.runtime.settings import ROOT

ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Another queue: how often we are to be faster, and the settings of which its best one counts.

    `jobs` keep it busy for some seconds, `trial` for long enough to tell the settings apart.
    `settled` is the SQL for when each job was settled.
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
        # Its documents call asyncpg the faster one; it is used where it is installed.
        driver="asyncpg" if find_spec("asyncpg") else "psycopg",
        budget=3,
        jobs=80_000,
        trial=30_000,
        # Five consumers and batches of 10 are what its own benchmark takes; for short jobs its
        # guide says to enlarge the batch.
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

#: What was settled at the first moment was begun before it.
RATE = """
    WITH settled AS ({settled}), first AS (SELECT min(at) AS at FROM settled)
    SELECT count(*), count(*) FILTER (WHERE settled.at > first.at)
                     / extract(epoch FROM max(settled.at) - min(first.at))::float
    FROM settled, first
"""


def rivals(stage: Stage) -> Iterator[Measure]:
    """Our drain against each rival in turn."""
    for rival in RIVALS:
        if find_spec(rival.package):
            yield _compare(stage, rival)
        else:
            yield Measure(
                what=f"events/s drained, against {rival.name}",
                figure="not measured",
                baseline=f"{rival.name} is not installed: bin/install rivals",
                budget=f"≥ {rival.budget} ×",
            )


def _compare(stage: Stage, rival: Rival) -> Measure:
    best = max(rival.settings, key=lambda setting: _drained(stage, rival, setting, rival.trial))
    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(_drained(stage, rival, best, rival.jobs))
        fill(stage)
        ours.append(drain(stage)[0])
    ratio = median(ours) / median(theirs)
    chosen = ", ".join(f"{name} {value}" for name, value in best.items())
    return Measure(
        what=f"events/s drained of no-op work, one process, against {rival.name}",
        figure=f"{median(ours):,.0f}",
        baseline=f"{rival.name} ({rival.driver}, {chosen}) {median(theirs):,.0f}: {ratio:.1f} ×",
        budget=f"≥ {rival.budget} ×",
        met=ratio >= rival.budget,
    )


def _drained(stage: Stage, rival: Rival, setting: Mapping[str, int], jobs: int) -> float:
    """Have a process of the rival's enqueue jobs in a new database and drain them. Return jobs/s."""
    url = stage.anew(rival.package)
    arguments = [f"--{name}={value}" for name, value in setting.items()]
    command = [sys.executable, "-m", f"benchmarks.{rival.package}_drain", url, f"--jobs={jobs}", *arguments]
    subprocess.run(command, cwd=ROOT, check=True)
    with psycopg.connect(url) as connection:
        found = connection.execute(RATE.format(settled=rival.settled)).fetchone()
    assert found is not None and found[0] == jobs, f"{rival.name} settled {found} of {jobs} jobs"
    return float(found[1])
