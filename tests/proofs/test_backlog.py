"""A backlog, and who works at it."""

from tests.proofs.checker import check, wait_until_drained
from tests.proofs.conftest import Open
from tests.proofs.waiting import wait_until


def test_one_ring_brings_all_threads_to_a_backlog(open_house: Open) -> None:
    house = open_house(batch_size=1)
    house.partners.ready()
    house.partners.turn(latency_seconds=0.2)
    house.hold(house.an_item(100), 64)
    house.worker(threads=4)

    house.ring()

    wait_until("three threads are at it", lambda: house.in_hand("partner") >= 3)
    house.partners.turn()
    wait_until_drained(house)
    check(house)
