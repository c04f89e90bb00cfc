"""A large backlog that waits for its retry: what it costs the events that do not."""

from collections.abc import Iterator

from benchmarks.draining import drain, fill
from benchmarks.environment import Stage
from benchmarks.measure import Measure, median

#: Five of each of 20,000 aggregates, none of which has ready ones.
WAITING = 100_000

ROUNDS = 3

BUDGET = 0.9


def waiting(stage: Stage) -> Iterator[Measure]:
    """Drain with and without the backlog, in turn."""
    with_them, without = [], []
    for _ in range(ROUNDS):
        fill(stage)
        without.append(drain(stage)[0])
        fill(stage, backlog=WAITING)
        with_them.append(drain(stage)[0])
    ratio = median(with_them) / median(without)
    yield Measure(
        what=f"events/s drained while {WAITING:,} of 20,000 aggregates wait for their retry",
        figure=f"{median(with_them):,.0f}",
        baseline=f"without them {median(without):,.0f}: {ratio:.0%}",
        budget=f"≥ {BUDGET:.0%}",
        met=ratio >= BUDGET,
    )
