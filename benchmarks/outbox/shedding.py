"""A webhook that sheds load: how much of what it can take it gets, and how many calls it has to refuse for that."""

import time
from collections.abc import Iterator
from uuid import uuid4

from benchmarks.environment import Environment, wait_until
from benchmarks.measure import Measure, compare
from benchmarks.outbox.draining import workers
from benchmarks.outbox.receiver import Counted, counted
from benchmarks.outbox.recording import recording

#: Calls that the webhook takes in a second. It answers the others with 503.
RATES = (5, 50)

#: So many times as many events are recorded.
TIMES_AS_MANY = 3

AGGREGATES = 1_000

#: What is measured begins with the first call that is shed: then the webhook has no tokens left, and can take exactly
#: as many calls as its rate gives.
SECONDS = 40

TAKEN_BUDGET = 0.9

#: Calls that are refused for each that is taken.
REFUSED_BUDGET = 3.0

PORT = 8105

ROUTES = f"""
[[destination]]
name = "webhook"
url = "http://127.0.0.1:{PORT}/"
events = ["booking.*"]
"""


def shedding(environment: Environment) -> Iterator[Measure]:
    """Delivery to a webhook that sheds two calls of three, against what it can take."""
    environment = environment.with_routes("shedding", ROUTES)
    for rate in RATES:
        found, seconds = _shed(environment, rate)
        what = f"a webhook that takes {rate}/s and sheds the others, of {TIMES_AS_MANY * rate}/s"
        yield compare(f"calls taken by {what}", found.taken, rate * seconds, named="it can take", at_least=TAKEN_BUDGET)
        yield _refused(f"calls refused for each that is taken by {what}", found)


def _shed(environment: Environment, rate: int) -> tuple[Counted, float]:
    """Return what the webhook has counted since it shed its first call, and how long that took."""
    environment.clear()
    receiver = environment.serving("benchmarks.outbox.receiver:create_app", PORT, RECEIVER_RATE=str(rate))
    with receiver, workers(environment, processes=2):
        with recording(environment, [uuid4() for _ in range(AGGREGATES)], rate=TIMES_AS_MANY * rate):
            wait_until(lambda: counted(PORT).shed > 0)
            time.sleep(SECONDS)
            found = counted(PORT)
            return found, time.monotonic() - found.shed_at


def _refused(what: str, found: Counted) -> Measure:
    ratio = found.shed / max(found.taken, 1)
    return Measure(
        what=what,
        measured=f"{ratio:.1f}",
        baseline=f"{found.shed:,} refused, {found.taken:,} taken",
        budget=f"≤ {REFUSED_BUDGET:g}",
        met=ratio <= REFUSED_BUDGET,
        numbers={"measured": ratio, "refused": found.shed, "taken": found.taken, "budget": REFUSED_BUDGET},
    )
