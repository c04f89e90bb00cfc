"""A large backlog that waits for its retry: what it costs the events that are ready."""

from collections.abc import Iterator

from benchmarks.environment import Environment
from benchmarks.measure import Measure, compare, median
from benchmarks.outbox.draining import drain, fill

#: Five events of each of 20,000 aggregates. None of these aggregates has an event that is ready.
WAITING = 100_000

ROUNDS = 3


def waiting(environment: Environment) -> Iterator[Measure]:
    """The drain with a backlog that waits for its retry, against none."""
    with_backlog, without = [], []
    for _ in range(ROUNDS):
        fill(environment)
        without.append(drain(environment)[0])
        fill(environment, backlog=WAITING)
        with_backlog.append(drain(environment)[0])
    yield compare(
        f"events/s drained while {WAITING:,} events of 20,000 aggregates wait for their retry",
        median(with_backlog),
        median(without),
        named="without them",
        at_least=0.9,
    )
