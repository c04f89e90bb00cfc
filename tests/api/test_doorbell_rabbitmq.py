"""The doorbell over RabbitMQ: events are delivered without a scheduler, and an outage affects no request."""

from functools import partial

import httpx
import pytest

from deploy.embedded import PostgreSQL
from tests.proofs.cluster.cluster import Cluster, a_cluster
from tests.proofs.cluster.processes import Api
from tests.support.ports import free_port
from tests.support.rabbitmq import rabbitmq
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rabbitmq")]

#: A request that waited for the broker would take longer: Dramatiq tries to connect for 10 s and more.
SLOW_SECONDS = 5.0


def reserves(api: Api, sku: str) -> str:
    """Make a reservation over HTTP, within SLOW_SECONDS. Return its id."""
    answer = httpx.post(
        f"http://127.0.0.1:{api.port}/reservations",
        json={"sku": sku, "quantity": 1},
        timeout=SLOW_SECONDS,
        trust_env=False,
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def is_delivered(cluster: Cluster, reservation: str) -> bool:
    journal = cluster.home / "journal.jsonl"
    return journal.exists() and reservation in journal.read_text()


def test_events_are_delivered_without_a_scheduler(postgresql: PostgreSQL) -> None:
    with a_cluster(postgresql, BROKER_URL=rabbitmq().url) as cluster:
        item = cluster.an_item(10)
        cluster.worker(processes=1)
        api = cluster.api().ready()

        for _ in range(3):
            reservation = reserves(api, item.sku)
            wait_until("its event is delivered", partial(is_delivered, cluster, reservation))

        assert cluster.log_of("doorbell.wakeup_failed") == []


def test_a_rabbitmq_that_is_down_neither_fails_nor_slows_a_request(postgresql: PostgreSQL) -> None:
    with a_cluster(postgresql, BROKER_URL=f"amqp://guest:guest@127.0.0.1:{free_port()}") as cluster:
        item = cluster.an_item(100)
        api = cluster.api().ready()

        for _ in range(50):
            reserves(api, item.sku)

        wait_until("a wake-up has failed", lambda: cluster.log_of("doorbell.wakeup_failed"))
        assert cluster.available(item) == 50
