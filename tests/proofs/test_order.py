"""Order per reservation, where it is in danger: commits out of the order of ids, and rows that are not delivered."""

from collections.abc import Mapping
from typing import Any

from tests.proofs.checker import check, wait_until_drained, wait_until_in_mid_delivery
from tests.proofs.cluster.receiver import a_receiver
from tests.proofs.conftest import Open
from tests.support.waiting import wait_until


def test_what_commits_late_is_not_overtaken(open_cluster: Open) -> None:
    """Ids are given before the commit: a run over a lane may have read past a row that it could not see yet."""
    cluster = open_cluster(batch_size=1, concurrency=1)
    cluster.worker()
    cluster.partners.ready()
    late, soon = cluster.an_item(1_000), cluster.an_item(1_000)

    for _ in range(2):
        cluster.partners.set_knobs(latency_seconds=0.1)
        with cluster.db() as session:
            made = cluster.hold_in(session, late, 96)
            cluster.hold(soon, 96)
            wait_until_in_mid_delivery(cluster, "partner", lanes=3)
            session.commit()
        cluster.cancel(made)
        cluster.partners.set_knobs()
        cluster.wake()
        wait_until_drained(cluster)

    check(cluster)


def test_a_poisonous_event_keeps_no_other_waiting_and_dies(open_cluster: Open) -> None:
    """It shares its lane with all others: no other lane could show that the receiver is well."""
    with a_receiver() as receiver:
        cluster = open_cluster(receiver=receiver, max_attempts=3, first_retry_seconds=0.2)
        item = cluster.an_item(100)
        (poison,) = cluster.hold(item, lane=0)
        receiver.rule = lambda event: 500 if _creates(event, str(poison)) else 204
        cluster.partners.ready()
        cluster.worker()
        cluster.scheduler()
        wait_until("it is tried", lambda: receiver.calls_for(str(poison)))

        others = 0
        while not cluster.log_of("outbox.dead"):
            (other,) = cluster.hold(item, lane=0)
            wait_until("the other one is sent", lambda other=other: receiver.calls_for(str(other)), within=20)  # type: ignore[misc]
            others += 1
            assert others < 100, "It never dies."
        wait_until_drained(cluster)

        counted = check(cluster, dead=1)
        assert counted.attempts == 3
        assert len(cluster.log_of("outbox.dead")) == 1


def _creates(event: Mapping[str, Any], booking_id: str) -> bool:
    return bool(event["event_type"] == "booking.created" and event["payload"]["booking_id"] == booking_id)
