"""One aggregate of a thousand that fails for ever, in one way or another: what it costs the others.

The same events go to four webhooks at the same time: for three of them one aggregate fails, each in its way, and for
the fourth none does. So a noisy moment of the machine affects the baseline as well. What one destination costs another
is for `hanging` to show.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from uuid import UUID, uuid4

from benchmarks.environment import Connection, Environment, wait_until
from benchmarks.measure import Measure, compare_times, median
from benchmarks.outbox.draining import workers
from benchmarks.outbox.receiver import NO_ANSWER, counted
from benchmarks.outbox.recording import recording

AGGREGATES = 1_000

#: Events a second, each of which goes to all webhooks.
RATE = 50

#: A 99th percentile needs many events. In each round, another lane is the one of the failing aggregate.
ROUNDS = 2

SECONDS = 45

#: What a round measures begins after this time, when all processes are warm.
WARM_UP_SECONDS = 5

BUDGET = 1.1

#: By the name of the webhook: what the failing aggregate is answered. For the webhook `control` none fails.
FAILURES = {"error": 500, "throttled": 429, "hang": NO_ANSWER}

DESCRIPTIONS = {"error": "gets 500", "throttled": "gets 429", "hang": "is never answered"}

PORTS = {"control": 8106, "error": 8107, "throttled": 8108, "hang": 8109}

#: The failing aggregate's row never becomes a dead letter: a dead row would end the trouble.
ROUTE = """
[[destination]]
name = "{name}"
url = "http://127.0.0.1:{port}/"
events = ["booking.*"]
max_attempts = 1000
"""


def failing(environment: Environment) -> Iterator[Measure]:
    """Delivery to webhooks while one aggregate fails for ever, against none."""
    routes = "".join(ROUTE.format(name=name, port=port) for name, port in PORTS.items())
    environment = environment.with_routes("failing", routes)
    rounds = [_percentiles(environment) for _ in range(ROUNDS)]
    p99 = {name: median([one[name] for one in rounds]) for name in PORTS}
    for name, description in DESCRIPTIONS.items():
        what = (
            f"recorded → delivered to a webhook, p99 of the others while one of {AGGREGATES:,} aggregates {description}"
        )
        yield compare_times(what, p99[name], p99["control"], named="while none fails", at_most=BUDGET)


def _percentiles(environment: Environment) -> Mapping[str, float]:
    """Run for a round. Return the 99th percentile of the others in milliseconds, for each webhook."""
    environment.clear()
    aggregates = [uuid4() for _ in range(AGGREGATES)]
    # Its first event comes when the workers are warm: of a destination that has never taken an event, nobody knows
    # whether it is down.
    failing = aggregates[RATE * WARM_UP_SECONDS]
    with ExitStack() as running:
        for name, port in PORTS.items():
            running.enter_context(_receiving(environment, name, port, failing))
        connection = running.enter_context(workers(environment, processes=2))
        with recording(environment, aggregates, rate=RATE) as recorder:
            wait_until(lambda: recorder.recorded >= RATE * (WARM_UP_SECONDS + SECONDS), seconds=120)
        return _measured(connection, failing)


def _receiving(environment: Environment, name: str, port: int, failing: UUID) -> AbstractContextManager[object]:
    settings = {"RECEIVER_REFUSES": str(failing), "RECEIVER_STATUS": str(FAILURES[name])} if name in FAILURES else {}
    return environment.serving("benchmarks.outbox.receiver:create_app", port, **settings)


def _measured(connection: Connection, failing: UUID) -> Mapping[str, float]:
    """Return the percentiles, once the others are delivered and the failing one was called more than once."""
    wait_until(lambda: connection.execute(IS_OVER, {"failing": failing}).fetchone() == (True,))
    wait_until(lambda: all(counted(PORTS[name]).refused > 1 for name in FAILURES))
    found = connection.execute(PERCENTILES, {"failing": failing, "warm_up": f"{WARM_UP_SECONDS} s"}).fetchall()
    return {str(name): float(str(p99)) for name, p99 in found}


IS_OVER = """
    SELECT bool_and((processed_at IS NULL) = (destination <> 'control' AND aggregate_id = %(failing)s)) FROM outbox
"""
PERCENTILES = """
    SELECT destination,
           percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM processed_at - created_at) * 1000)
    FROM outbox
    WHERE aggregate_id <> %(failing)s AND created_at > (SELECT min(created_at) FROM outbox) + %(warm_up)s::interval
    GROUP BY destination
"""
