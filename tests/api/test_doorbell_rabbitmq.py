"""The doorbell over RabbitMQ: a reservation leaves without a scheduler, and no request minds that it is down."""

from functools import partial

import httpx

from deploy.embedded import PostgreSQL
from tests.proofs.cluster import Api, House, a_house
from tests.proofs.processes import free_port
from tests.proofs.waiting import wait_until
from tests.support.rabbitmq import rabbitmq

#: A request that waited for the doorbell would wait for longer: Dramatiq's broker tries to connect for 10 s and more.
SLOW_SECONDS = 5.0


def reserves(api: Api, sku: str) -> str:
    """Make a reservation over HTTP. Return its id. It must not take long."""
    answer = httpx.post(
        f"http://127.0.0.1:{api.port}/reservations",
        json={"sku": sku, "quantity": 1},
        timeout=SLOW_SECONDS,
        trust_env=False,
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def has_left(house: House, reservation: str) -> bool:
    return house.journal().exists() and reservation in house.journal().read_text()


def test_a_reservation_leaves_with_no_scheduler_running(postgresql: PostgreSQL) -> None:
    with a_house(postgresql, BROKER_URL=rabbitmq().url) as house:
        item = house.an_item(10)
        house.worker(processes=1)
        api = house.api().ready()

        for _ in range(3):
            reservation = reserves(api, item.sku)
            wait_until("its event is delivered", partial(has_left, house, reservation))

        assert house.log_of("doorbell.unheard") == []


def test_a_rabbitmq_that_is_down_neither_fails_nor_slows_a_request(postgresql: PostgreSQL) -> None:
    with a_house(postgresql, BROKER_URL=f"amqp://guest:guest@127.0.0.1:{free_port()}") as house:
        item = house.an_item(100)
        api = house.api().ready()

        for _ in range(50):
            reserves(api, item.sku)

        wait_until("the doorbell is not heard", lambda: house.log_of("doorbell.unheard"))
        assert house.available(item) == 50
