"""Many clients at once want overlapping baskets over real HTTP: nothing is oversold, and nothing is held in part."""

from collections import Counter
from collections.abc import Sequence
from random import Random

from sqlalchemy import select, text

from domain.items import Item
from domain.reservations.lifecycle import HOLDING
from domain.reservations.table import reservations as table
from tests.proofs.checker import check
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.conftest import Open
from tests.proofs.load import Client, Response, at_once

CONNECTIONS = 64
ITEMS = 8
STOCK = 60


def test_64_clients_that_want_baskets_in_every_order_never_oversell(open_cluster: Open, seed: int) -> None:
    """Some baskets last for a second only, so that others take them back. Some are cancelled."""
    cluster = open_cluster()
    api = cluster.api()
    items = [cluster.an_item(STOCK) for _ in range(ITEMS)]
    cluster.partners.ready()
    api.ready()

    def some(number: int) -> list[Response]:
        dice = Random(seed + number)
        with Client(api.port) as client:
            return [_basket(client, dice, items, f"{number}-{turn}") for turn in range(8)]

    responses = [response for each in at_once(CONNECTIONS, some) for response in each]
    cluster.drain()

    assert {response.status for response in responses} <= {201, 409, 503}
    assert sum(response.status == 201 for response in responses) > ITEMS
    assert all(response.body["type"] == "/problems/sold-out" for response in responses if response.status == 409)
    _check_that_stock_is_kept_or_available(cluster, items, responses)
    with cluster.db.begin() as session:
        deadlocks = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert session.execute(deadlocks).scalar_one() == 0
    check(cluster)


def _basket(client: Client, dice: Random, items: Sequence[Item], key: str) -> Response:
    chosen = dice.sample(items, dice.randint(1, 4))
    lines = [{"item_id": item.id, "quantity": dice.randint(1, 3)} for item in chosen]
    ttl_seconds = dice.choice([1, 600])
    made = client.post("/reservations", {"lines": lines, "ttl_seconds": ttl_seconds}, key=key)
    if made.status == 201:
        held = [{"item_id": line["item_id"], "quantity": line["quantity"]} for line in made.body["lines"]]
        assert held == lines
        if dice.random() < 0.3:
            client.post(f"/reservations/{made.body['id']}/cancel", {}, key=f"{key}-cancel")
    return made


def _check_that_stock_is_kept_or_available(
    cluster: Cluster, items: Sequence[Item], responses: Sequence[Response]
) -> None:
    with cluster.db.begin() as session:
        holding = select(table.c.id).where(table.c.status.in_(list(HOLDING)))
        kept = {str(one) for one in session.execute(holding).scalars()}
    held: Counter[int] = Counter()
    for response in responses:
        if response.status == 201 and response.body["id"] in kept:
            for line in response.body["lines"]:
                held[line["item_id"]] += line["quantity"]
    assert [cluster.available(item) + held[item.id] for item in items] == [STOCK] * ITEMS
