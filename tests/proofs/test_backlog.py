"""A backlog, and the threads that work on it."""

from tests.proofs.checker import check, wait_until_drained
from tests.proofs.conftest import Open
from tests.support.waiting import wait_until


def test_one_wake_up_brings_all_threads_to_a_backlog(open_cluster: Open) -> None:
    cluster = open_cluster(batch_size=1)
    cluster.partners.ready()
    cluster.partners.set_knobs(latency_seconds=0.2)
    cluster.hold(cluster.an_item(100), 64)
    cluster.worker(threads=4)

    cluster.wake()

    wait_until("three threads deliver", lambda: cluster.lanes_leased("partner") >= 3)
    cluster.partners.set_knobs()
    wait_until_drained(cluster)
    check(cluster)
