"""Workers and APIs that are killed or frozen under load."""

from tests.proofs.checker import check, wait_until_drained
from tests.proofs.conftest import Open
from tests.proofs.customers import Customers
from tests.proofs.waiting import wait_until


def test_smoke(open_house: Open, seed: int) -> None:
    house = open_house()
    api = house.api()
    house.worker()
    house.scheduler()
    house.partners.ready()
    api.ready()
    item = house.an_item(100_000)

    with Customers([api.port], [item.id], seed) as load:
        load.go_on(seconds=5, answers=50)
    wait_until_drained(house)
    print(len(load.answered), load.slowest, load.unanswered)

    print(check(house, answered=load.answered))
