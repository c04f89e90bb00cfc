"""The confirmation service when it is slow, down, unwilling or unreliable: what becomes of the holds."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from domain.items import Item
from domain.outbox.table import outbox
from domain.reservations.table import reservations
from tests.proofs.checker import check, count, statuses, wait_until_drained
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.conftest import Open
from tests.support.waiting import wait_until


def test_an_answer_that_comes_too_late_confirms_nothing(open_cluster: Open) -> None:
    """The service says yes after the hold has expired."""
    cluster = open_cluster()
    cluster.worker()
    cluster.scheduler()
    cluster.partners.ready()
    cluster.partners.set_knobs(latency_seconds=2.5)
    item = cluster.an_item(5)
    wait_until("the worker is ready", cluster.destinations)

    made = cluster.hold(item, 5, lasting=timedelta(seconds=1.5))
    wait_until("the service is being asked", lambda: cluster.lanes_leased("confirmation"))
    wait_until("the holds have expired", lambda: statuses(cluster, made) == {"EXPIRED": 5})
    cluster.partners.set_knobs()
    wait_until_drained(cluster)

    assert statuses(cluster, made) == {"EXPIRED": 5}
    assert cluster.available(item) == 5
    assert {cluster.partners.bookings()[str(one)] for one in made} == {"released"}
    check(cluster)


def test_a_service_that_is_down_confirms_nothing_afterwards(open_cluster: Open) -> None:
    """Holds expire one after the other in the outage. The service is not asked for them, and that is no recovery."""
    cluster = open_cluster()
    cluster.partners.ready()
    cluster.partners.set_knobs(outage=True)
    item = cluster.an_item(10)
    lasting = [cluster.hold(item, lane=0)[0] for _ in range(5)]
    cluster.worker()
    cluster.scheduler()
    wait_until("the outage is noticed", lambda: _outages_noticed(cluster))

    expiring = [_expired_unasked(cluster, item) for _ in range(5)]
    noticed = _outages_noticed(cluster)

    def is_noticed_again() -> bool:
        cluster.skip_pauses()
        return _outages_noticed(cluster) > noticed

    wait_until("the outage is noticed again", is_noticed_again)
    outage = count(cluster)
    cluster.partners.set_knobs()
    wait_until_drained(cluster, skipping=True)

    assert (outage.attempts, outage.dead) == (0, 0)
    assert statuses(cluster, expiring) == {"EXPIRED": 5}
    assert statuses(cluster, lasting) == {"CONFIRMED": 5}
    assert cluster.available(item) == 5
    assert {cluster.partners.bookings()[str(one)] for one in expiring} == {"released"}
    assert check(cluster).attempts == 0


def test_a_refusal_rejects_and_gives_the_stock_back(open_cluster: Open) -> None:
    cluster = open_cluster()
    wanted, unwanted = cluster.an_item(20), cluster.an_item(20, sku="UNWANTED")
    cluster.partners.ready()
    cluster.partners.set_knobs(refuse_skus=["UNWANTED"])
    cluster.worker()
    cluster.scheduler()

    confirmed, refused = cluster.hold(wanted, 20), cluster.hold(unwanted, 20)
    wait_until_drained(cluster)

    assert statuses(cluster, confirmed) == {"CONFIRMED": 20}
    assert statuses(cluster, refused) == {"REJECTED": 20}
    assert (cluster.available(wanted), cluster.available(unwanted)) == (0, 20)
    assert set(_reasons(cluster, refused)) == {"confirmation-declined"}
    assert check(cluster).attempts == 0


def test_errors_are_tried_again_until_there_is_an_answer(open_cluster: Open) -> None:
    """Both partners answer three of ten requests with 500."""
    cluster = open_cluster()
    item = cluster.an_item(12)
    cluster.partners.ready()
    cluster.partners.set_knobs(error_rate=0.3)
    cluster.worker()
    cluster.scheduler()

    def are_confirmed() -> bool:
        cluster.skip_pauses()
        return statuses(cluster, made) == {"CONFIRMED": 12}

    made = cluster.hold(item, 12)
    wait_until("all are confirmed", are_confirmed)
    cluster.partners.set_knobs()
    wait_until_drained(cluster, skipping=True)

    check(cluster)


def _expired_unasked(cluster: Cluster, item: Item) -> UUID:
    """Make a hold that is overdue before the service is asked for it. Wait until a release is recorded for it."""
    releases = _releases(cluster)
    cluster.pause("confirmation")
    (made,) = cluster.hold(item, lane=0, lasting=timedelta(seconds=0.2))
    overdue = cluster.now() + timedelta(seconds=0.2)
    wait_until("it is overdue", lambda: cluster.now() > overdue)
    cluster.pause()

    def is_released() -> bool:
        cluster.skip_pauses()
        cluster.wake()
        return _releases(cluster) > releases

    wait_until("the service is asked to release it", is_released)
    return made


def _outages_noticed(cluster: Cluster) -> int:
    return sum(event["destination"] == "confirmation" for event in cluster.log_of("destination.down"))


def _releases(cluster: Cluster) -> int:
    with cluster.db.begin() as session:
        wanted = select(func.count()).where(outbox.c.type == "reservation_release")
        return session.execute(wanted).scalar_one()


def _reasons(cluster: Cluster, ids: Sequence[UUID]) -> Sequence[str]:
    with cluster.db.begin() as session:
        wanted = select(reservations.c.cancellation_reason).where(reservations.c.id.in_(ids))
        return [reason or "" for reason in session.execute(wanted).scalars()]
