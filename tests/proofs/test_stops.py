"""SIGTERM: what is in flight is finished, the lanes are released, and it takes less than 10 s."""

import pytest
from sqlalchemy import func, select

from domain.outbox.table import lanes
from tests.proofs.checker import check, wait_until_drained, wait_until_in_mid_delivery
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.conftest import Open
from tests.proofs.load import Load
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tests.worker.telemetry.test_exposition import eventually

#: What the documentation says of every process.
GONE_WITHIN_SECONDS = 10.0

pytestmark = pytest.mark.timed

#: A supervisor signals the whole group, as systemd and honcho do, or the parent alone, as `kill` does.
WHOLE_GROUP = (False, True)


def test_a_worker_settles_what_it_has_begun_and_releases_its_lanes(open_cluster: Open) -> None:
    """The partners take a second for each answer."""
    cluster = open_cluster(batch_size=100)
    cluster.partners.ready()
    cluster.partners.set_knobs(latency_seconds=1)
    cluster.hold(cluster.an_item(300), 300)

    for whole_group in WHOLE_GROUP:
        worker = cluster.worker(processes=2)
        wait_until_in_mid_delivery(cluster, "partner", "confirmation")
        took = worker.stop(within=GONE_WITHIN_SECONDS, whole_group=whole_group)
        print(f"it took {took:.1f} s")
        assert _leased(cluster) == 0

    cluster.partners.set_knobs()
    cluster.worker()
    cluster.scheduler()
    wait_until_drained(cluster)
    check(cluster, repeats_at_most=0)


def test_a_worker_whose_partner_hangs_releases_its_lanes_too(open_cluster: Open) -> None:
    """No answer comes before the worker must be gone: the calls that it has begun are repeated, and no others."""
    cluster = open_cluster(concurrency=4, DELIVERY_TIMEOUT_SECONDS="60", CONFIRMATION_TIMEOUT_SECONDS="60")
    cluster.partners.ready()
    cluster.partners.set_knobs(latency_seconds=25)
    worker = cluster.worker(threads=4)
    cluster.hold(cluster.an_item(100), 100)
    wait_until_in_mid_delivery(cluster, "partner", "confirmation")

    took = worker.stop(within=GONE_WITHIN_SECONDS, whole_group=True)

    print(f"it took {took:.1f} s")
    assert _leased(cluster) == 0
    cluster.partners.set_knobs()
    cluster.worker()
    cluster.scheduler()
    wait_until_drained(cluster)
    check(cluster, repeats_at_most=16)


def test_a_worker_that_waits_for_its_database_ends(open_cluster: Open) -> None:
    cluster = open_cluster()
    for whole_group in WHOLE_GROUP:
        worker = cluster.worker(DATABASE_URL="postgresql://127.0.0.1:1/nowhere")
        wait_until("it waits", lambda worker=worker: worker.events("worker.waits"))  # type: ignore[misc]

        took = worker.stop(within=GONE_WITHIN_SECONDS, whole_group=whole_group)

        print(f"it took {took:.1f} s")


def test_a_scheduler_ends(open_cluster: Open) -> None:
    cluster = open_cluster()
    cluster.worker()
    cluster.partners.ready()
    for whole_group in WHOLE_GROUP:
        cluster.hold(cluster.an_item(1))
        port = free_port()
        scheduler = cluster.start("scheduler", "bin/scheduler", SCHEDULER_METRICS_PORT=str(port))
        eventually(f"http://127.0.0.1:{port}/metrics", bool)
        wait_until_drained(cluster)

        took = scheduler.stop(within=GONE_WITHIN_SECONDS, whole_group=whole_group)

        print(f"it took {took:.1f} s")
        assert scheduler.popen.returncode == 0
    check(cluster)


def test_an_api_answers_what_it_has_begun_and_ends(open_cluster: Open, seed: int) -> None:
    """Clients have requests in flight, on connections that they keep. They continue at another API."""
    cluster = open_cluster()
    apis = [cluster.api() for _ in range(3)]
    cluster.partners.ready()
    for api in apis:
        api.ready()

    with Load([api.port for api in apis], [cluster.an_item(100_000).id], seed, rest_seconds=0.05) as load:
        for api, whole_group in zip(apis, WHOLE_GROUP, strict=False):
            load.wait(seconds=0.5, answers=20)
            took = api.process.stop(within=GONE_WITHIN_SECONDS, whole_group=whole_group)
            print(f"it took {took:.1f} s")
        load.wait(answers=20)
    cluster.drain("--limit", "100")

    print(f"the slowest answer took {load.slowest_seconds:.2f} s")
    assert not load.unexpected
    assert not cluster.log_of("request.failed")
    check(cluster, answered=load.answered)


def _leased(cluster: Cluster) -> int:
    with cluster.db.begin() as session:
        leased = select(func.count()).where(lanes.c.leased_until > func.clock_timestamp())
        return session.execute(leased).scalar_one()
