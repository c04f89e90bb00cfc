"""What Holdfast needs fails under load and comes back: Redis, the receiver, PostgreSQL."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import Row, func, select, text, update

from deploy.embedded import PostgreSQL
from domain import reservations
from domain.outbox.delivery.breaker import LONGEST_OPEN
from domain.outbox.table import destinations
from domain.runtime.wakeups import DRAINING, ENOUGH_WAITING
from tests.proofs.checker import check, check_invariants, count, statuses, wait_until_drained
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.receiver import Rule, a_receiver, healthy
from tests.proofs.conftest import Open, a_postgresql
from tests.proofs.load import Client, Load
from tests.support.waiting import wait_until

#: Failures in a row after a long outage: by then a breaker pauses as long as it ever does.
MANY_FAILURES = 20

#: After the pause of a breaker, a wake-up brings a probe: the next one of the scheduler at the latest. A busy machine
#: may need three seconds more.
PROBED_WITHIN_SECONDS = 1.0 + 3.0


#: The list in Redis of the wake-ups that wait.
QUEUE = f"dramatiq:{DRAINING}"


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    with a_postgresql() as server:
        yield server


def test_nothing_is_lost_with_a_redis_that_forgets_everything(open_cluster: Open, seed: int) -> None:
    cluster = _running(open_cluster)
    (api,) = cluster.apis

    with (
        Load([api.port], [cluster.an_item(100_000).id], seed) as load,
        Redis.from_url(cluster.redis.url) as redis,
    ):
        for _ in range(50):
            redis.flushall()
            check_invariants(cluster)
            load.wait(seconds=0.03)
        load.wait(answers=20)
    wait_until_drained(cluster)

    assert (load.unanswered, load.unexpected) == (0, [])
    assert check(cluster, answered=load.answered).attempts == 0


def test_events_are_delivered_while_redis_is_down(open_cluster: Open) -> None:
    cluster = _running(open_cluster)
    wait_until("the worker is ready", cluster.destinations)
    cluster.redis.stop()

    cluster.hold(cluster.an_item(10), 10)
    wait_until_drained(cluster)

    assert check(cluster).attempts == 0


def test_wakeups_that_redis_has_lost_are_sent_again(open_cluster: Open, seed: int) -> None:
    """It loses the list of a queue, as by an eviction, and keeps the messages, which nobody can fetch any more."""
    cluster = open_cluster()
    api = cluster.api().ready()
    cluster.partners.ready()

    with (
        Load([api.port], [cluster.an_item(100_000).id], seed) as load,
        Redis.from_url(cluster.redis.url) as redis,
    ):
        wait_until("enough wake-ups wait", lambda: redis.llen(QUEUE) >= ENOUGH_WAITING)
        redis.delete(QUEUE)
        wait_until("wake-ups wait again", lambda: redis.llen(QUEUE))
        cluster.worker()
        load.wait(answers=20)
    wait_until_drained(cluster)

    check(cluster, answered=load.answered)


def test_nobody_needs_a_restart_when_redis_is_back(open_cluster: Open, seed: int) -> None:
    cluster = _running(open_cluster)
    (api,) = cluster.apis
    (worker,) = cluster.workers
    item = cluster.an_item(100_000)

    with Load([api.port], [item.id], seed, clients=4) as load:
        load.wait(answers=20)
        cluster.redis.stop()
        wait_until("the worker has failed to connect again", lambda: _broken_connections(worker.log.read_text()) >= 4)
        load.wait(answers=20)
        waited = count(cluster).pending
        cluster.redis.start()
        load.wait(answers=20)
    wait_until_drained(cluster)

    print(f"{waited} rows waited for a wake-up; the slowest answer took {load.slowest_seconds:.2f} s")
    assert waited > 0, "The worker still got wake-ups: the proof has shown nothing."
    assert (load.unanswered, load.unexpected) == (0, [])
    assert check(cluster, answered=load.answered).attempts == 0


def test_with_no_redis_at_all_cron_delivers_everything(open_cluster: Open, seed: int) -> None:
    cluster = open_cluster()
    cluster.redis.stop()
    api = cluster.api()
    cluster.partners.ready()
    api.ready()

    with Load([api.port], [cluster.an_item(100_000).id], seed) as load:
        load.wait(answers=50)
    output = cluster.drain()

    print(f"the slowest answer took {load.slowest_seconds:.2f} s; {output.strip()}")
    counted = check(cluster, answered=load.answered)
    assert (counted.pending, counted.attempts) == (0, 0)
    assert f"{counted.recorded} delivered, 0 waiting" in output
    assert (load.unanswered, load.unexpected) == (0, [])


@pytest.mark.timed
def test_an_outage_of_the_receiver_spends_no_attempt_and_keeps_the_order(open_cluster: Open, seed: int) -> None:
    """It answers 503, then its port refuses connections, then it is back. Probes meet each of the three."""
    cluster = _running(open_cluster)
    (api,) = cluster.apis

    with Load([api.port], [cluster.an_item(100_000).id], seed, clients=3) as load:
        load.wait(answers=20)
        cluster.partners.set_knobs(outage=True)
        wait_until("probes have met 503", lambda: _failures(cluster) >= 3)
        cluster.partners.stop()
        known = _failures(cluster)
        wait_until("probes were refused a connection", lambda: _failures(cluster) >= known + 2)
        load.wait(answers=20)
        _fail_often(cluster)
        wait_until("a probe has failed late in the outage", lambda: _breaker(cluster).failures > MANY_FAILURES)
        pause = _breaker(cluster).open_until - cluster.now()
        outage = count(cluster)
        cluster.start_partners()
        cluster.partners.ready()
        received = len(cluster.partners.received().events)
        cluster.skip_pauses()
        back = time.monotonic()
        wait_until("the return is noticed", lambda: len(cluster.partners.received().events) > received)
        noticed = time.monotonic() - back
        load.wait(answers=20)
    wait_until_drained(cluster, skipping=True)

    print(f"{outage.pending} rows waited; after the pause the return was noticed within {noticed:.1f} s")
    assert outage.pending > 20
    assert (outage.attempts, outage.dead) == (0, 0)
    assert pause <= LONGEST_OPEN
    assert noticed <= PROBED_WITHIN_SECONDS
    assert (load.unanswered, load.unexpected) == (0, [])
    assert check(cluster, answered=load.answered).attempts == 0


def test_a_receiver_that_throttles_makes_no_dead_letters(open_cluster: Open) -> None:
    """It takes four events a second, and answers all others with 429."""
    with a_receiver() as receiver:
        cluster = open_cluster(receiver=receiver, max_attempts=2)
        receiver.rule = _throttling(seconds=0.25)
        cluster.hold(cluster.an_item(4), 4)
        cluster.partners.ready()
        cluster.worker()
        cluster.scheduler()

        wait_until_drained(cluster, skipping=True)

        refused = sum(status == 429 for _, status in receiver.calls)
        print(f"{refused} answers were 429")
        assert refused > 0
        assert check(cluster).attempts == 0


def test_everyone_recovers_from_a_crash_of_postgresql(
    open_cluster: Open, own_postgresql: PostgreSQL, seed: int
) -> None:
    """It crashes twice under load, and is back when everybody has noticed. Nobody is restarted.

    At the first time only the API writes, so that each of its commits must reach the disk by itself.
    """
    cluster = _running(open_cluster, on=own_postgresql)
    _write_late(cluster)
    (api,) = cluster.apis

    with Load([api.port], [cluster.an_item(100_000).id], seed, cancelling=0) as load:
        load.wait(answers=20)
        cluster.workers[0].freeze()
        for _ in range(2):
            load.wait(answers=20)
            unanswered = load.unanswered
            own_postgresql.stop("immediate")
            cluster.workers[0].thaw()
            wait_until("each client has met the crash", lambda: load.unanswered > unanswered + 2 * load.clients)  # noqa: B023
            load.wait(seconds=1)
            own_postgresql.start()
        load.wait(answers=20)
    wait_until_drained(cluster)

    repeated = f"{load.unanswered} requests had to be repeated"
    print(f"{len(load.answered)} answered, {repeated}, the slowest took {load.slowest_seconds:.2f} s")
    assert load.unanswered > 0
    assert not load.unexpected
    # A batch of the journal may have all events that were due.
    check(cluster, repeats_at_most={"partner": 200, "journal": 1_000}, answered=load.answered)


def test_a_worker_that_starts_before_its_database_begins_with_it(
    open_cluster: Open, own_postgresql: PostgreSQL
) -> None:
    cluster = open_cluster(on=own_postgresql)
    cluster.hold(cluster.an_item(10), 10)
    own_postgresql.stop()
    api, worker = cluster.api(), cluster.worker()
    cluster.scheduler()
    cluster.partners.ready()
    wait_until("the worker waits", lambda: worker.events("worker.waits"))

    own_postgresql.start()

    wait_until_drained(cluster)
    api.ready()
    check(cluster)


def test_nothing_that_a_crash_undoes_was_sent(open_cluster: Open, own_postgresql: PostgreSQL) -> None:
    """A basket that is refused takes an overdue hold back. PostgreSQL crashes while the receiver gets that event."""
    with a_receiver() as receiver:
        cluster = open_cluster(on=own_postgresql, receiver=receiver)
        _write_late(cluster)
        api = cluster.api()
        cluster.worker()
        api.ready()
        item, sold_out = cluster.an_item(1), cluster.an_item(1)
        wait_until("the worker is ready", cluster.destinations)
        cluster.pause("journal", "confirmation")
        cluster.hold(sold_out)
        (overdue,) = cluster.hold(item, lasting=timedelta(seconds=1))
        cluster.wake()
        wait_until("the hold is known", lambda: receiver.calls_for(str(overdue)))
        wait_until("the hold is overdue", lambda: cluster.now() > _expires_at(cluster, overdue))

        receiver.rule = _crashing(own_postgresql)
        with Client(api.port) as client:
            lines = [{"item_id": one.id, "quantity": 1} for one in (item, sold_out)]
            refused = client.post("/reservations", {"lines": lines})
        cluster.wake()
        wait_until("it is sent", lambda: receiver.calls_for(str(overdue)) > 1)
        wait_until("PostgreSQL has crashed", lambda: not own_postgresql.runs())
        receiver.rule = healthy
        own_postgresql.start()
        cluster.pause()
        cluster.partners.ready()
        cluster.scheduler()
        wait_until("the hold is gone", lambda: statuses(cluster, [overdue]) == {"EXPIRED": 1})
        wait_until_drained(cluster)

        assert refused.status == 409
        check(cluster, repeats_at_most=2)


def _write_late(cluster: Cluster) -> None:
    """Have PostgreSQL write a commit that nobody waits for only after 10 s, so that a crash comes before that."""
    with cluster.db.kw["bind"].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER SYSTEM SET wal_writer_delay = '10s'"))
        connection.execute(text("SELECT pg_reload_conf()"))


def _broken_connections(log: str) -> int:
    """Return how often the consumers of a worker have found Redis down: each of its two queues has one."""
    return log.count("Consumer encountered a connection error")


def _breaker(cluster: Cluster) -> Row[Any]:
    """Return the circuit breaker of the destination `partner`."""
    with cluster.db.begin() as session:
        return session.execute(select(destinations).where(destinations.c.name == "partner")).one()


def _failures(cluster: Cluster) -> int:
    """Skip the pause of the breaker. Return its failures in a row."""
    cluster.skip_pauses()
    failures: int = _breaker(cluster).failures
    return failures


def _fail_often(cluster: Cluster) -> None:
    """Have the breaker of `partner` count as many failures as after a long outage, and probe at once."""
    with cluster.db.begin() as session:
        partner = update(destinations).where(destinations.c.name == "partner")
        session.execute(partner.values(failures=MANY_FAILURES, open_until=func.clock_timestamp()))


def _throttling(*, seconds: float) -> Rule:
    """Take one event in this many seconds."""
    took = [0.0]

    def throttle(_: object) -> int:
        if time.monotonic() < took[-1] + seconds:
            return 429
        took.append(time.monotonic())
        return 204

    return throttle


def _crashing(postgresql: PostgreSQL) -> Rule:
    def crash(_: object) -> int:
        with suppress(subprocess.CalledProcessError):  # it has crashed already
            postgresql.stop("immediate")
        return 204

    return crash


def _expires_at(cluster: Cluster, reservation_id: UUID) -> datetime:
    with cluster.db.begin() as session:
        expires_at = reservations.get(session, reservation_id).expires_at
    assert expires_at is not None
    return expires_at


def _running(open_cluster: Open, **options: object) -> Cluster:
    cluster = open_cluster(**options)
    cluster.api()
    cluster.worker()
    cluster.scheduler()
    cluster.partners.ready()
    cluster.apis[0].ready()
    return cluster
