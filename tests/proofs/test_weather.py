"""Bad weather: partners that are neither up nor down, beside one that is healthy and must feel nothing of them."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from uuid import uuid4

import pytest
from sqlalchemy import text

from domain.outbox import record
from domain.outbox.delivery.breaker import LONGEST_OPEN
from tests.proofs.checker import check_invariants
from tests.proofs.cluster import weather
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.weather import Behaviour, Partner
from tests.proofs.conftest import Open
from tests.support.builders import an_event
from tests.support.waiting import wait_until

#: Events a second, each of which goes to all partners.
RATE = 10

AGGREGATES = 200

FAIR_SECONDS, BAD_SECONDS = 15, 30

#: When the weather is fair again, the next probe comes within the longest pause of a breaker, and then everything is
#: delivered. This machine may be busy.
DELIVERED_WITHIN_SECONDS = LONGEST_OPEN.total_seconds() + 15

#: In bad weather the healthy partner gets 99 events of 100 within this many times as many seconds as in fair weather.
#: `bin/bench hanging` has the budget: here, the partners take processor time from the workers.
TIMES_AS_LATE, OR_SECONDS = 3.0, 1.0

ROUTE = """
[[destination]]
name = "{name}"
url = "{url}"
events = ["booking.*"]
timeout_seconds = 3
max_attempts = 3
first_retry_seconds = 0.2
longest_retry_seconds = 1
"""


def behaviours(seed: int) -> Mapping[str, Behaviour]:
    return {
        "healthy": weather.healthy,
        "sheds": weather.sheds,
        "flaps": weather.flaps,
        "hangs": weather.hangs,
        "hangs-on-one": weather.hangs_on_one,
        "slow": weather.is_slow,
        "fails-for-some": weather.fails_for_some,
        "throttles-one": weather.throttles_one,
        "gone-for-one": weather.is_gone_for_one,
        "locks-out": weather.locks_out,
        "hangs-up": weather.hangs_up,
        "changes": weather.Changing(seed),
    }


#: Where some events may die: those that alone are refused for ever, and whose destination says that they are the cause.
MAY_BURY = {"fails-for-some", "throttles-one", "gone-for-one", "hangs-on-one"}


@pytest.mark.timed
def test_in_bad_weather_nobody_suffers_for_a_neighbour_and_nothing_dies_of_it(open_cluster: Open, seed: int) -> None:
    with weather.partners(behaviours(seed)) as partners:
        cluster = open_cluster(
            routes="".join(ROUTE.format(name=partner.name, url=partner.url) for partner in partners.values())
        )
        cluster.worker(processes=2)
        cluster.scheduler()
        wait_until("the workers are ready", lambda: set(partners) <= set(cluster.destinations()))

        set_fair(partners)
        with recording(cluster):
            wait_until("everybody is called", lambda: all(partner.calls for partner in partners.values()))
            alone = late(cluster, "healthy", seconds=FAIR_SECONDS)
            set_fair(partners, is_fair=False)
            beside = late(cluster, "healthy", seconds=BAD_SECONDS)
            shed = partners["sheds"].count()
        set_fair(partners)
        fair = time.monotonic()
        wait_until("everything is delivered", lambda: not pending(cluster), within=60)
        took = time.monotonic() - fair

        print(f"healthy: 99 of 100 within {alone:.2f} s in fair and {beside:.2f} s in bad weather")
        print(f"all is delivered {took:.1f} s after it; dead: {dead(cluster)}")
        print({name: dict(partner.count()) for name, partner in partners.items()})
        assert beside <= max(TIMES_AS_LATE * alone, OR_SECONDS)
        assert set(dead(cluster)) <= MAY_BURY
        assert shed[503] <= 3 * shed[204]
        assert shed[204] >= 0.8 * min(RATE, weather.CAPACITY) * BAD_SECONDS
        assert took < DELIVERED_WITHIN_SECONDS
        for partner in partners.values():
            assert_in_order(cluster, partner)
        check_invariants(cluster)


def set_fair(partners: Mapping[str, Partner], *, is_fair: bool = True) -> None:
    for partner in partners.values():
        partner.is_fair.set() if is_fair else partner.is_fair.clear()


@contextmanager
def recording(cluster: Cluster) -> Iterator[None]:
    """Record events at a steady rate while the block runs."""
    aggregates, stopped = [uuid4() for _ in range(AGGREGATES)], threading.Event()

    def run() -> None:
        for aggregate in cycle(aggregates):
            if stopped.wait(1 / RATE):
                return
            with cluster.db.begin() as session:
                record(session, [an_event(aggregate)], cluster.routes)
            cluster.wake()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def late(cluster: Cluster, name: str, *, seconds: float) -> float:
    """Let so many seconds pass. Return within how many 99 of 100 of their events were delivered, or still wait."""
    begin = cluster.now()
    time.sleep(seconds)  # the length of the weather
    statement = text("""
        SELECT percentile_cont(0.99) WITHIN GROUP (
            ORDER BY extract(epoch FROM coalesce(processed_at, clock_timestamp()) - created_at)
        ) FROM outbox WHERE destination = :name AND created_at > :begin
    """)
    with cluster.db.begin() as session:
        return float(session.execute(statement, {"name": name, "begin": begin}).scalar_one())


def pending(cluster: Cluster) -> Mapping[str, int]:
    return _counted(cluster, "processed_at IS NULL AND dead_at IS NULL")


def dead(cluster: Cluster) -> Mapping[str, int]:
    return _counted(cluster, "dead_at IS NOT NULL")


def _counted(cluster: Cluster, condition: str) -> Mapping[str, int]:
    statement = text(f"SELECT destination, count(*) FROM outbox WHERE {condition} GROUP BY 1")
    with cluster.db.begin() as session:
        return {name: count for name, count in session.execute(statement) if name not in ("journal", "partner")}


def assert_in_order(cluster: Cluster, partner: Partner) -> None:
    """Check that the events of each aggregate were first taken in the order in which they were recorded."""
    statement = text(
        "SELECT event_id, aggregate_id FROM outbox WHERE destination = :name AND dead_at IS NULL ORDER BY id"
    )
    with cluster.db.begin() as session:
        recorded = session.execute(statement, {"name": partner.name}).all()
    delivered = {str(event_id) for event_id, _ in recorded}
    expected, found = (
        _by_aggregate(recorded),
        _by_aggregate([(call.event_id, call.aggregate_id) for call in partner.taken() if call.event_id in delivered]),
    )
    assert found == expected, partner.name


def _by_aggregate(events: Sequence[tuple[object, object]]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for event_id, aggregate_id in events:
        found.setdefault(str(aggregate_id), []).append(str(event_id))
    return found
