"""What Holdfast stands on goes away under load, and comes back: Redis, the receiver, PostgreSQL."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import func, select, text, update

from deploy.embedded import PostgreSQL
from domain import reservations
from domain.outbox.table import destinations
from tests.proofs.checker import check, check_laws, count, statuses, wait_until_drained
from tests.proofs.cluster import House
from tests.proofs.conftest import Open, a_postgresql
from tests.proofs.load import Customers, Door
from tests.proofs.receiver import Rule, a_receiver, healthy
from tests.proofs.waiting import wait_until

#: How long the receiver is down, in seconds: far longer than any attempt takes.
RECEIVER_DOWN_SECONDS = 30.0

#: A receiver that is back is noticed within this time: its breaker's longest pause, and a ring.
NOTICED_WITHIN_SECONDS = 16.0


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    with a_postgresql() as server:
        yield server


def test_nothing_is_lost_with_a_redis_that_forgets_everything(open_house: Open, seed: int) -> None:
    house = _running(open_house)
    (api,) = house.apis

    with Customers([api.port], [house.an_item(100_000).id], seed) as load, Redis.from_url(house.redis.url) as redis:
        for _ in range(50):
            redis.flushall()
            check_laws(house)
            load.go_on(seconds=0.03)
        load.go_on(answers=20)
    wait_until_drained(house)

    assert (load.unanswered, load.unexpected) == (0, [])
    assert check(house, answered=load.answered).attempts == 0


def test_nobody_needs_a_restart_when_redis_is_back(open_house: Open, seed: int) -> None:
    house = _running(open_house)
    (api,) = house.apis
    item = house.an_item(100_000)

    with Customers([api.port], [item.id], seed, customers=4) as load:
        load.go_on(answers=20)
        house.redis.stop()
        load.go_on(seconds=8, answers=20)
        waited = count(house).pending
        house.redis.start()
        load.go_on(answers=20)
    wait_until_drained(house)

    print(f"{waited} promises waited for a ring; the slowest answer took {load.slowest:.2f} s")
    assert waited > 0, "The worker was not deaf yet: the proof has shown nothing."
    assert (load.unanswered, load.unexpected) == (0, [])
    assert check(house, answered=load.answered).attempts == 0


def test_with_no_redis_at_all_cron_delivers_everything(open_house: Open, seed: int) -> None:
    house = open_house()
    house.redis.stop()
    api = house.api()
    house.partners.ready()
    api.ready()

    with Customers([api.port], [house.an_item(100_000).id], seed) as load:
        load.go_on(answers=50)
    said = house.drain()

    print(f"the slowest answer took {load.slowest:.2f} s; {said.strip()}")
    counted = check(house, answered=load.answered)
    assert (counted.pending, counted.attempts) == (0, 0)
    assert f"{counted.recorded} delivered, 0 waiting" in said
    assert (load.unanswered, load.unexpected) == (0, [])


def test_an_outage_of_the_receiver_spends_no_attempt_and_keeps_the_order(open_house: Open, seed: int) -> None:
    """It answers 503 for a third of the time, then its port refuses connections, then it is back."""
    house = _running(open_house)
    (api,) = house.apis

    with Customers([api.port], [house.an_item(100_000).id], seed, customers=3) as load:
        load.go_on(answers=20)
        house.partners.turn(outage=True)
        load.go_on(seconds=RECEIVER_DOWN_SECONDS / 3, answers=20)
        house.partners.stop()
        load.go_on(seconds=RECEIVER_DOWN_SECONDS * 2 / 3, answers=20)
        outage = count(house)
        back = time.monotonic()
        house.start_partners()
        house.partners.ready()
        load.go_on(answers=20)
    received = len(house.partners.received().events)
    wait_until("the receiver's return is noticed", lambda: len(house.partners.received().events) > received)
    noticed = time.monotonic() - back
    wait_until_drained(house)

    print(f"{outage.pending} promises waited; the return was noticed within {noticed:.1f} s")
    assert outage.pending > 20
    assert (outage.attempts, outage.dead) == (0, 0)
    assert noticed <= NOTICED_WITHIN_SECONDS + 3
    assert (load.unanswered, load.unexpected) == (0, [])
    assert check(house, answered=load.answered).attempts == 0


def test_a_receiver_that_throttles_kills_nothing(open_house: Open) -> None:
    """It takes four events a second, and answers all others with 429."""
    with a_receiver() as receiver:
        house = open_house(receiver=receiver, max_attempts=2)
        receiver.rule = _throttling(seconds=0.25)
        house.hold(house.an_item(4), 4)
        house.partners.ready()
        house.worker()
        house.scheduler()

        wait_until_drained(house)

        refused = sum(status == 429 for _, status in receiver.calls)
        print(f"{refused} answers were 429")
        assert refused > 0
        assert check(house).attempts == 0


def test_everyone_recovers_from_a_crash_of_postgresql(open_house: Open, own_postgresql: PostgreSQL, seed: int) -> None:
    """It crashes twice under load, and is back 2 s later. Nobody is restarted.

    At the first time nobody but the API writes, so that each commit must reach the disk by itself.
    """
    house = _running(open_house, on=own_postgresql)
    _write_late(house)
    (api,) = house.apis

    with Customers([api.port], [house.an_item(100_000).id], seed, cancelling=0) as load:
        load.go_on(answers=20)
        house.workers[0].freeze()
        for _ in range(2):
            load.go_on(seconds=1, answers=20)
            own_postgresql.stop("immediate")
            house.workers[0].thaw()
            load.go_on(seconds=2)
            own_postgresql.start()
        load.go_on(answers=20)
    wait_until_drained(house)

    print(f"{len(load.answered)} answered, {load.unanswered} asked again, the slowest {load.slowest:.2f} s")
    assert load.unanswered > 0
    assert not load.unexpected
    check(house, repeats_at_most=200, answered=load.answered)


def test_a_worker_that_comes_up_before_its_database_begins_with_it(
    open_house: Open, own_postgresql: PostgreSQL
) -> None:
    house = open_house(on=own_postgresql)
    house.hold(house.an_item(10), 10)
    own_postgresql.stop()
    api, worker = house.api(), house.worker()
    house.scheduler()
    house.partners.ready()
    wait_until("the worker waits", lambda: worker.events("worker.waits"))

    own_postgresql.start()

    wait_until_drained(house)
    api.ready()
    check(house)


def test_nobody_is_told_what_a_crash_undoes(open_house: Open, own_postgresql: PostgreSQL) -> None:
    """A refused request takes a lapsed hold back; PostgreSQL crashes while the receiver hears of it."""
    with a_receiver() as receiver:
        house = open_house(on=own_postgresql, receiver=receiver)
        _write_late(house)
        api = house.api()
        house.worker()
        api.ready()
        item = house.an_item(1)
        wait_until("the worker is there", lambda: _pause(house, "journal", "confirmation") == 2)
        (lapsing,) = house.hold(item, lasting=timedelta(seconds=1))
        house.ring()
        wait_until("the hold is known", lambda: receiver.asked(str(lapsing)))
        wait_until("the hold has lapsed", lambda: house.now() > _expires_at(house, lapsing))

        receiver.rule = _crashing(own_postgresql)
        with Door(api.port) as door:
            refused = door.post("/reservations", {"item_id": item.id, "quantity": 2})
        house.ring()
        wait_until("PostgreSQL has crashed", lambda: receiver.asked(str(lapsing)) > 1)
        receiver.rule = healthy
        own_postgresql.start()
        _pause(house)
        house.partners.ready()
        house.scheduler()
        wait_until("the hold is gone", lambda: statuses(house, [lapsing]) == {"EXPIRED": 1})
        wait_until_drained(house)

        assert refused.status == 409
        check(house, repeats_at_most=2)


def _write_late(house: House) -> None:
    """Have PostgreSQL write what nobody waits for after 10 s: time enough to crash before."""
    with house.db.kw["bind"].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER SYSTEM SET wal_writer_delay = '10s'"))
        connection.execute(text("SELECT pg_reload_conf()"))


def _throttling(*, seconds: float) -> Rule:
    """Take one event in so many seconds."""
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


def _pause(house: House, *names: str) -> int:
    """Pause these destinations and no others. Return how many there are of them."""
    with house.db.begin() as session:
        is_paused = destinations.c.name.in_(names)
        session.execute(update(destinations).values(paused=is_paused))
        return session.execute(select(func.count()).where(is_paused)).scalar_one()


def _expires_at(house: House, reservation_id: UUID) -> datetime:
    with house.db.begin() as session:
        expires_at = reservations.get(session, reservation_id).expires_at
    assert expires_at is not None
    return expires_at


def _running(open_house: Open, **options: object) -> House:
    house = open_house(**options)
    house.api()
    house.worker()
    house.scheduler()
    house.partners.ready()
    house.apis[0].ready()
    return house
