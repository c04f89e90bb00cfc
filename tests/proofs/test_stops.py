"""SIGTERM: what is in hand is finished, the lanes are given back, and it takes less than 10 s."""

from sqlalchemy import func, select

from domain.outbox.table import lanes
from tests.proofs.checker import check, wait_until_drained
from tests.proofs.cluster import House, wait_until_in_mid_delivery
from tests.proofs.conftest import Open
from tests.proofs.load import Customers
from tests.proofs.waiting import wait_until

#: The promise.
GONE_WITHIN_SECONDS = 10.0

#: A supervisor tells the whole group, as systemd and honcho do, or the parent alone, as `kill` does.
WHOM = (False, True)


def test_a_worker_settles_what_it_has_begun_and_gives_its_lanes_back(open_house: Open) -> None:
    """The partners take 2 s for each answer."""
    house = open_house(batch_size=100)
    house.partners.ready()
    house.partners.turn(latency_seconds=2)
    house.hold(house.an_item(300), 300)

    for whole_group in WHOM:
        worker = house.worker(processes=2)
        wait_until_in_mid_delivery(house, "partner", "confirmation")
        took = worker.stop(within=GONE_WITHIN_SECONDS, whole_group=whole_group)
        print(f"it took {took:.1f} s")
        assert _leased(house) == 0

    house.partners.turn()
    house.worker()
    house.scheduler()
    wait_until_drained(house)
    check(house, repeats_at_most=0)


def test_a_worker_whose_partner_hangs_gives_its_lanes_back_too(open_house: Open) -> None:
    """No answer comes before the worker must be gone: what it has sent goes out again, and nothing else does."""
    house = open_house(concurrency=4, WEBHOOK_TIMEOUT_SECONDS="60", CONFIRMATION_TIMEOUT_SECONDS="60")
    house.partners.ready()
    house.partners.turn(latency_seconds=25)
    worker = house.worker(threads=4)
    house.hold(house.an_item(100), 100)
    wait_until_in_mid_delivery(house, "partner", "confirmation")

    took = worker.stop(within=GONE_WITHIN_SECONDS, whole_group=True)

    print(f"it took {took:.1f} s")
    assert _leased(house) == 0
    house.partners.turn()
    house.worker()
    house.scheduler()
    wait_until_drained(house)
    check(house, repeats_at_most=16)


def test_a_worker_that_waits_for_its_database_ends(open_house: Open) -> None:
    house = open_house()
    for whole_group in WHOM:
        worker = house.worker(DATABASE_URL="postgresql://127.0.0.1:1/nowhere")
        wait_until("it waits", lambda worker=worker: worker.events("worker.waits"))  # type: ignore[misc]

        took = worker.stop(within=GONE_WITHIN_SECONDS, whole_group=whole_group)

        print(f"it took {took:.1f} s")


def test_a_scheduler_ends(open_house: Open) -> None:
    house = open_house()
    house.worker()
    house.partners.ready()
    for whole_group in WHOM:
        house.hold(house.an_item(1))
        scheduler = house.scheduler()
        wait_until_drained(house)

        took = scheduler.stop(within=GONE_WITHIN_SECONDS, whole_group=whole_group)

        print(f"it took {took:.1f} s")
        assert scheduler.popen.returncode == 0
    check(house)


def test_an_api_answers_what_it_has_begun_and_ends(open_house: Open, seed: int) -> None:
    """Customers are in the middle of it, on connections that they keep. They go on at another API."""
    house = open_house()
    apis = [house.api() for _ in range(3)]
    house.partners.ready()
    for api in apis:
        api.ready()

    with Customers([api.port for api in apis], [house.an_item(100_000).id], seed, rest_seconds=0.05) as load:
        for api, whole_group in zip(apis, WHOM, strict=False):
            load.go_on(seconds=0.5, answers=20)
            took = api.process.stop(within=GONE_WITHIN_SECONDS, whole_group=whole_group)
            print(f"it took {took:.1f} s")
        load.go_on(answers=20)
    house.drain("--limit", "100")

    print(f"the slowest answer took {load.slowest:.2f} s")
    assert not load.unexpected
    assert not house.log_of("request.failed")
    check(house, answered=load.answered)


def _leased(house: House) -> int:
    with house.db.begin() as session:
        ours = select(func.count()).where(lanes.c.leased_until > func.clock_timestamp())
        return session.execute(ours).scalar_one()
