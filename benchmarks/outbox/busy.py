"""A busy service: how soon two destinations get an event, at 500 events a second and at 20.

The destinations accept everything at once (`null:`), so what is measured is the way of an event through the outbox:
the wake-up, the claim, the fetch and the settle, by the database's clock. A webhook would add its own calls, which
take the processor from the workers where the receiver shares it with them.
"""

from collections.abc import Iterator
from typing import cast
from uuid import uuid4

from benchmarks.environment import Environment, wait_until
from benchmarks.measure import Measure, compare_times, median
from benchmarks.outbox.draining import workers
from benchmarks.outbox.recording import recording

#: Events a second, each of which goes to both destinations.
BUSY, QUIET = 500, 20

#: So many that at the busy rate all 32 lanes are due at any moment, with few rows each.
AGGREGATES = 1_000

#: The rounds of both rates take turns.
ROUNDS = 3

SECONDS = 15

#: What a round measures begins after this time, when all processes are warm.
WARM_UP_SECONDS = 3

#: By the percentile: so many times as late as at the quiet rate.
BUDGETS = {50: 2.0, 99: 5.0}

ROUTES = """
[[destination]]
name = "one"
url = "null:"
events = ["booking.*"]

[[destination]]
name = "two"
url = "null:"
events = ["booking.*"]
"""


def busy(environment: Environment) -> Iterator[Measure]:
    """The time from commit to delivery to two destinations at 500 events/s, against 20/s."""
    environment = environment.with_routes("busy", ROUTES)
    rounds = [(_percentiles(environment, QUIET), _percentiles(environment, BUSY)) for _ in range(ROUNDS)]
    for percentile, budget in BUDGETS.items():
        quiet, ours = (median([one[rate][percentile] for one in rounds]) for rate in (0, 1))
        what = f"commit → delivered to two destinations, {BUSY} events/s, p{percentile}"
        yield compare_times(what, ours, quiet, named=f"at {QUIET}/s", at_most=budget)


def _percentiles(environment: Environment, rate: int) -> dict[int, float]:
    """Run for a round and return the percentiles in milliseconds."""
    environment.clear()
    with workers(environment, processes=2) as connection:
        with recording(environment, [uuid4() for _ in range(AGGREGATES)], rate=rate) as recorder:
            wait_until(lambda: recorder.recorded >= rate * (WARM_UP_SECONDS + SECONDS))
        wait_until(lambda: connection.execute(IS_DELIVERED).fetchone() == (True,))
        shares = [percentile / 100 for percentile in BUDGETS]
        found = connection.execute(PERCENTILES, [shares, f"{WARM_UP_SECONDS} s"]).fetchone()
    assert found is not None
    return dict(zip(BUDGETS, cast(list[float], found[0]), strict=True))


IS_DELIVERED = "SELECT bool_and(processed_at IS NOT NULL) FROM outbox"
PERCENTILES = """
    SELECT percentile_cont(%s::float[]) WITHIN GROUP (ORDER BY extract(epoch FROM processed_at - created_at) * 1000)
    FROM outbox WHERE created_at > (SELECT min(created_at) FROM outbox) + %s::interval
"""
