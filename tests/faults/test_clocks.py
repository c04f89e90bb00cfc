"""Clocks that are wrong: a worker's, whose signatures are dated, and PostgreSQL's, by which leases and pauses end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import func, select

from deploy.embedded import PostgreSQL
from domain.outbox.table import outbox, pending
from tests.faults.fault_injections import FAKETIME, FAULTS
from tests.proofs.checker import check, wait_until_drained
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.conftest import Open, a_postgresql
from tests.proofs.load import Load
from tests.support.requirements import required
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

#: How far the clock of PostgreSQL steps from the right time, in seconds. Deliveries are dated by it, and a receiver
#: takes what is dated up to 300 s from its own clock. The last step is one forth: after one back, `bin/doctor` rightly
#: says that there was one.
STEPS = (-200, 200, -200, 200)

#: Events that are recorded after a step are delivered within this time, on a machine however busy.
DELIVERED_WITHIN_SECONDS = 30.0

#: More rows than two workers have in flight at a moment. A step forth ends all leases at once.
IN_FLIGHT = 200

SetClock = Callable[[int], None]


@pytest.mark.parametrize("fault_name", ["clock-ahead", "clock-behind"])
def test_receivers_accept_what_it_signs(open_cluster: Open, fault_name: str) -> None:
    """By Standard Webhooks, a receiver refuses what is dated more than 5 minutes from its own clock."""
    cluster = open_cluster()
    cluster.partners.ready()
    cluster.hold(cluster.an_item(3), 3)

    process = cluster.start("cron", "bin/process-outbox", **FAULTS[fault_name].environment())

    assert process.popen.wait(60) == 0, process.log.read_text()
    check(cluster)


@pytest.mark.timed
def test_deliveries_continue_when_the_clock_of_postgresql_steps_back_and_forth(
    open_cluster: Open, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    with a_postgresql_with_a_clock(monkeypatch) as (postgresql, set_clock):
        cluster = open_cluster(on=postgresql)
        api = cluster.api()
        for _ in range(2):
            cluster.worker(threads=3)
        cluster.scheduler()
        cluster.partners.ready()
        api.ready()

        with Load([api.port], [cluster.an_item(100_000).id], seed) as load:
            load.wait(answers=10)
            for off in STEPS:
                before = cluster.now()
                set_clock(off)
                wait_until("the clock has stepped", lambda: abs((cluster.now() - before).total_seconds()) > 100)  # noqa: B023
                load.wait(answers=10)
                _wait_until_delivered(cluster, _newest(cluster))
        wait_until_drained(cluster)

        assert not load.unexpected
        counted = check(cluster, repeats_at_most=IN_FLIGHT, answered=load.answered)
        assert counted.attempts == 0
        cluster.close()


@contextmanager
def a_postgresql_with_a_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PostgreSQL, SetClock]]:
    """A server, and a function that sets its clock to the right time and so many seconds."""
    required("libfaketime", FAKETIME.exists(), "faketime")
    with a_postgresql() as server:
        clock = server.home / "clock"
        clock.write_text("+0s\n")
        clock.chmod(0o644)
        server.stop()
        variables = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            # All connections see a step at once. With a cache some would for a second see the clock as it was.
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            server.start()

        def set_clock(off: int) -> None:
            clock.write_text(f"{off:+d}s\n")

        yield server, set_clock


def _newest(cluster: Cluster) -> int:
    with cluster.db.begin() as session:
        newest: int = session.execute(select(func.max(outbox.c.id))).scalar_one()
    return newest


def _wait_until_delivered(cluster: Cluster, newest: int) -> None:
    """Wait until no row up to this id is pending."""
    left = select(func.count()).select_from(outbox).where(pending, outbox.c.id <= newest)

    def is_delivered() -> bool:
        with cluster.db.begin() as session:
            return session.execute(left).scalar_one() == 0

    wait_until(f"all rows up to {newest} are delivered", is_delivered, within=DELIVERED_WITHIN_SECONDS)
