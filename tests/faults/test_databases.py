"""What may happen to PostgreSQL itself: it is replaced by its standby, its commits take long, its connections hang."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import func, select, text

from deploy.embedded import PostgreSQL
from domain.outbox.delivery.lanes import LEASE
from domain.outbox.table import outbox
from tests.proofs.checker import check, check_invariants, wait_until_drained
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.conftest import Open, a_postgresql
from tests.proofs.load import Load
from tests.support.lossy_proxy import LossyProxy
from tests.support.standby import a_standby
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

#: More rows than two workers have in flight at a moment.
IN_FLIGHT = 200


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    with a_postgresql() as server:
        yield server


@pytest.fixture
def proxy(own_postgresql: PostgreSQL) -> Iterator[LossyProxy]:
    """A proxy before a database of that server."""
    proxy = LossyProxy(own_postgresql.create("behind_a_proxy"))
    yield proxy
    proxy.close()


def test_everybody_continues_on_a_standby_that_was_promoted(
    open_cluster: Open, own_postgresql: PostgreSQL, proxy: LossyProxy, seed: int
) -> None:
    """The primary crashes under load. What it had not sent to its standby, claims and renewals, is undone by that."""
    cluster = _running(open_cluster, own_postgresql, DATABASE_URL=proxy.url)
    (api,) = cluster.apis

    with a_standby(own_postgresql) as standby:
        with Load([api.port], [cluster.an_item(100_000).id], seed) as load:
            load.wait(answers=20)
            known = _newest(cluster)
            own_postgresql.stop("immediate")
            standby.promote()
            proxy.switch_to(standby.socket)
            promoted = _newest(cluster)
            check_invariants(cluster)
            load.wait(answers=20)
        wait_until_drained(cluster)

        print(f"the newest row was {known}, and {promoted} after the promotion; {load.unanswered} requests repeated")
        assert promoted >= known, "A committed row is lost."
        assert _newest(cluster) > promoted
        assert not load.unexpected
        counted = check(cluster, repeats_at_most=IN_FLIGHT, answered=load.answered)
        assert counted.attempts == 0


def test_nobody_sends_again_what_is_being_settled_however_long_its_commit_takes(
    open_cluster: Open, own_postgresql: PostgreSQL, seed: int
) -> None:
    """PostgreSQL waits at each commit for a standby that is not there, for longer than a lease."""
    cluster = _running(open_cluster, own_postgresql, threads=1)
    (api,), (worker,) = cluster.apis, cluster.workers

    with Load([api.port], [cluster.an_item(100_000).id], seed) as load:
        load.wait(answers=20)
        _wait_at_commits_for(cluster, "nobody")
        wait_until("a batch has been settling for longer than a lease", lambda: _settling_for_long(cluster))
        _wait_at_commits_for(cluster, "")
        load.wait(answers=20)
    wait_until_drained(cluster)

    assert not load.unexpected
    # A thread that got no connection to settle with, because all of them waited at commits, has sent its batch in vain.
    in_vain = IN_FLIGHT if worker.events("relay.interrupted") else 0
    counted = check(cluster, repeats_at_most=in_vain, answered=load.answered)
    assert counted.attempts == 0


def test_a_worker_whose_connections_hang_delays_nobody_and_works_again_afterwards(
    open_cluster: Open, own_postgresql: PostgreSQL, proxy: LossyProxy, seed: int
) -> None:
    """What stands between one worker and PostgreSQL swallows everything, even the ends of connections."""
    cluster = _running(open_cluster, own_postgresql, DATABASE_URL=proxy.direct_url)
    (api,), (other,) = cluster.apis, cluster.workers
    hung = cluster.worker(threads=3, DATABASE_URL=proxy.url)
    wait_until("the worker behind the proxy delivers", lambda: _works(cluster, hung.pids))

    with Load([api.port], [cluster.an_item(100_000).id], seed) as load:
        load.wait(answers=20)
        wait_until("it has leased lanes", lambda: cluster.leased_by(hung))
        proxy.swallows = True
        wait_until("its leases are over", lambda: not cluster.leased_by(hung))
        load.wait(answers=20)
    wait_until_drained(cluster)
    proxy.swallows = False
    other.freeze()
    cluster.hold(cluster.an_item(5), 5)
    wait_until_drained(cluster)

    assert not load.unexpected
    check(cluster, repeats_at_most=IN_FLIGHT, answered=load.answered)


def _running(open_cluster: Open, on: PostgreSQL, *, threads: int = 3, **options: str) -> Cluster:
    cluster = open_cluster(on=on, **options)
    cluster.api()
    cluster.worker(threads=threads)
    cluster.scheduler()
    cluster.partners.ready()
    cluster.apis[0].ready()
    return cluster


def _newest(cluster: Cluster) -> int:
    with cluster.db.begin() as session:
        newest: int = session.execute(select(func.max(outbox.c.id))).scalar_one()
    return newest


def _wait_at_commits_for(cluster: Cluster, standby: str) -> None:
    """Have PostgreSQL wait at each commit for a standby of this name, or for none."""
    with cluster.db.kw["bind"].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'"))
        connection.execute(text("SELECT pg_reload_conf()"))


def _settling_for_long(cluster: Cluster) -> bool:
    """Return whether a transaction that has changed a lane waits at its commit for longer than a lease."""
    waiting = text("""
        SELECT count(*) FROM pg_stat_activity JOIN pg_locks USING (pid)
        WHERE wait_event = 'SyncRep' AND relation = 'outbox_lanes'::regclass AND mode = 'RowExclusiveLock'
        AND clock_timestamp() - xact_start > :lease * interval '1.5 seconds'
    """)
    with cluster.db.begin() as session:
        return bool(session.execute(waiting, {"lease": LEASE.total_seconds()}).scalar_one())


def _works(cluster: Cluster, pids: Callable[[], set[int]]) -> bool:
    """Return whether one of these processes has a lane now, after waking workers with new events."""
    cluster.hold(cluster.an_item(1))
    cluster.wake()
    return bool(pids() & cluster.leased_lanes().keys())
