"""Many requests at once for the same thing, over real HTTP or over real connections to the database."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from random import Random
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from domain.idempotency import Answered
from domain.items import Item
from domain.reservations.table import reservations as table
from tests.proofs.checker import check, statuses
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.processes import Api
from tests.proofs.conftest import Open
from tests.proofs.load import Client, Response, at_once
from tests.support.builders import a_request
from tests.support.waiting import wait_until

CONNECTIONS = 64


def test_64_connections_sell_100_units_exactly(open_cluster: Open, seed: int) -> None:
    """Quantities from 1 to 9, and each third request a repeat of one that may be in flight."""
    cluster = open_cluster()
    api = cluster.api()
    item = cluster.an_item(100)
    cluster.partners.ready()
    api.ready()

    asked, responses = _all_want_some(api, item, Random(seed))
    cluster.drain()

    assert {response.status for response in responses} == {201, 409}
    sold = _sold(cluster)
    assert sum(sold) == 100
    assert cluster.available(item) == 0
    _check_that_each_key_acted_once(asked, responses, len(sold))
    _check_that_the_refused_did_not_fit(responses, sold)
    check(cluster)
    print(
        f"{len(asked)} requests, {len(sold)} reservations, {sum(response.replayed for response in responses)} repeats"
    )


def _all_want_some(api: Api, item: Item, dice: Random) -> tuple[Sequence[tuple[str, int]], Sequence[Response]]:
    """Send the requests from all connections at once. Return the key and quantity of each, and its response."""
    wanted = {f"key-{number}": dice.choice([1, 1, 2, 3, 5, 9]) for number in range(CONNECTIONS * 4)}
    keys = [*wanted, *dice.choices(list(wanted), k=CONNECTIONS * 2)]
    dice.shuffle(keys)
    share = len(keys) // CONNECTIONS

    def some(number: int) -> list[Response]:
        with Client(api.port) as client:
            return [
                client.post_until_decided("/reservations", {"item_id": item.id, "quantity": wanted[key]}, key=key)
                for key in keys[number * share : (number + 1) * share]
            ]

    responses = [response for each in at_once(CONNECTIONS, some) for response in each]
    return [(key, wanted[key]) for key in keys], responses


def _sold(cluster: Cluster) -> list[int]:
    """Return the quantities that were reserved, in the order of the decisions: ids sort by the time of creation."""
    with cluster.db.begin() as session:
        return list(session.execute(select(table.c.quantity).order_by(table.c.id)).scalars())


def _check_that_each_key_acted_once(
    asked: Sequence[tuple[str, int]], responses: Sequence[Response], reservations_made: int
) -> None:
    by_key = defaultdict(list)
    for (key, _), response in zip(asked, responses, strict=True):
        if response.status == 201:
            by_key[key].append(response)
    assert len(by_key) == reservations_made
    for same in by_key.values():
        assert len({response.text for response in same}) == 1
        assert sum(not response.replayed for response in same) == 1


def _check_that_the_refused_did_not_fit(responses: Sequence[Response], sold: Sequence[int]) -> None:
    """Each refusal names a quantity that was available at some moment, and is less than what was asked for."""
    left = {100 - taken for taken in accumulate(sold, initial=0)}
    for response in responses:
        if response.status == 409:
            assert response.body["available_quantity"] in left
            assert response.body["asked"] > response.body["available_quantity"]


def test_400_pairs_that_lock_in_opposite_orders_never_deadlock(open_cluster: Open, seed: int) -> None:
    """Half reserve the one item first, half the other one. Each pair is then cancelled, or expires."""
    cluster = open_cluster()
    one, other = cluster.an_item(3_000), cluster.an_item(3_000)
    dice = [Random(seed + number) for number in range(20)]

    def pairs(number: int) -> None:
        for _ in range(20):
            first, second = (one, other) if dice[number].random() < 0.5 else (other, one)
            lasting = timedelta(seconds=dice[number].choice([0, 900]))
            made = _reserve_pair(cluster, [first, second], lasting)
            dice[number].shuffle(made)
            cluster.cancel(made)

    def expire(number: int) -> None:
        for _ in range(40):
            cluster.expire(dice[number].randint(1, 10))

    at_once(20 + 2, lambda number: pairs(number) if number < 20 else expire(number - 20))
    expire(0)

    assert _deadlocks(cluster) == 0
    assert (cluster.available(one), cluster.available(other)) == (3_000, 3_000)
    assert len(_sold(cluster)) == 800
    cluster.partners.ready()
    cluster.drain("--limit", "100")
    check(cluster)


def _reserve_pair(cluster: Cluster, pair: Sequence[Item], lasting: timedelta) -> list[UUID]:
    outcomes = cluster.reserve(*(a_request(item, hold_for=lasting) for item in pair))
    assert all(isinstance(outcome, Answered) for outcome in outcomes)
    return [UUID(json.loads(outcome.text)["id"]) for outcome in outcomes if isinstance(outcome, Answered)]


def _deadlocks(cluster: Cluster) -> int:
    with cluster.db.begin() as session:
        counted = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        deadlocks: int = session.execute(counted).scalar_one()
        return deadlocks


def test_the_same_key_at_once_over_two_apis_acts_once(open_cluster: Open) -> None:
    """32 connections, half of them to each API, send the same request with the same key, 25 times."""
    cluster = open_cluster()
    apis = [cluster.api(), cluster.api()]
    items = [cluster.an_item(50), cluster.an_item(50)]
    for api in apis:
        api.ready()

    same = [_ask_with_one_key(apis, [{"item_id": items[0].id, "quantity": 2}], f"same-{turn}") for turn in range(25)]
    quantities = [{"item_id": items[1].id, "quantity": quantity} for quantity in (1, 2)]
    differing = [_ask_with_one_key(apis, quantities, f"differing-{turn}") for turn in range(10)]

    for responses in same:
        assert {response.status for response in responses} == {201}
        assert len({response.text for response in responses}) == 1
        assert sum(not response.replayed for response in responses) == 1
    _check_that_one_payload_won(differing)
    assert cluster.available(items[0]) == 0
    cluster.partners.ready()
    cluster.drain()
    check(cluster)


def test_a_key_that_races_over_two_items_and_two_apis_acts_once(open_cluster: Open) -> None:
    """The requests share no lock on an item: they race for the key itself."""
    cluster = open_cluster()
    apis = [cluster.api(), cluster.api()]
    items = [cluster.an_item(100), cluster.an_item(100)]
    for api in apis:
        api.ready()

    wanted = [{"item_id": item.id, "quantity": 1} for item in items]
    racing = [_ask_with_one_key(apis, wanted, f"racing-{turn}") for turn in range(40)]

    _check_that_one_payload_won(racing)
    assert sum(map(cluster.available, items)) == 200 - 40
    cluster.partners.ready()
    cluster.drain()
    check(cluster)


def _ask_with_one_key(apis: Sequence[Api], wanted: Sequence[dict[str, int]], key: str) -> Sequence[Response]:
    def ask(number: int) -> Response:
        with Client(apis[number % 2].port) as client:
            # The payloads take turns in pairs, so that each is sent to both APIs.
            return client.post_until_decided("/reservations", wanted[number // 2 % len(wanted)], key=key)

    return at_once(32, ask)


def _check_that_one_payload_won(races: Sequence[Sequence[Response]]) -> None:
    for responses in races:
        made = [response for response in responses if response.status == 201]
        assert len({response.text for response in made}) == 1
        assert sum(not response.replayed for response in made) == 1
        refused = [response for response in responses if response.status != 201]
        assert {(response.status, response.body["type"]) for response in refused} == {(409, KEY_REUSED)}


KEY_REUSED = "/problems/idempotency-key-reused"


@pytest.mark.parametrize("naming", ["expected_version", "If-Match"])
def test_of_confirm_and_cancel_at_once_exactly_one_wins(open_cluster: Open, naming: str) -> None:
    """Both requests for each of 100 holds name the version that they have seen, each on a connection of its own."""
    cluster = open_cluster()
    apis = [cluster.api(), cluster.api()]
    item = cluster.an_item(100)
    for api in apis:
        api.ready()
    made = cluster.hold(item, 100)
    body, headers = ({"expected_version": 1}, {}) if naming == "expected_version" else ({}, {"If_Match": '"1"'})

    def change(number: int, to: str) -> list[Response]:
        # The two threads that race for the same holds use different APIs.
        with Client(apis[(number // 2 + number) % 2].port) as client:
            return [_change(client, one, to, body, **headers) for one in made[number // 2 :: 8]]

    orders = ["confirm", "cancel"] * 8
    responses = at_once(16, lambda number: change(number, orders[number]))

    assert {response.status for each in responses for response in each} == {200, 412 if headers else 409}
    confirmed, cancelled = (_won(responses, orders, to) for to in ("confirm", "cancel"))
    print(f"{confirmed} confirmed, {cancelled} cancelled")
    assert confirmed + cancelled == 100
    assert statuses(cluster, made) == Counter(CONFIRMED=confirmed, CANCELLED=cancelled)
    assert cluster.available(item) == cancelled
    cluster.partners.ready()
    cluster.drain()
    check(cluster)


@pytest.mark.parametrize(
    ("operation", "body", "kept_as"), [("confirm", {}, "CONFIRMED"), ("extend", {"ttl_seconds": 3_600}, "PENDING")]
)
def test_of_a_change_and_expire_at_once_exactly_one_wins(
    open_cluster: Open, seed: int, operation: str, body: Mapping[str, int], kept_as: str
) -> None:
    """100 holds expire one after the other, each changed at about that moment, while two threads keep expiring."""
    cluster = open_cluster()
    api = cluster.api()
    item = cluster.an_item(100)
    dice = Random(seed)
    ended = Event()
    api.ready()
    made = cluster.hold(item, 100)
    expiring = [time.time() + 1.5 + number * 0.02 for number in range(100)]
    _expire_at(cluster, dict(zip(made, expiring, strict=True)))
    # Every tenth is changed early, so that some are kept on a busy machine as well.
    early = [1.0 if number % 10 == 0 else dice.uniform(-0.01, 0.03) for number in range(100)]
    moments = [moment - seconds for moment, seconds in zip(expiring, early, strict=True)]

    def change(number: int) -> list[tuple[UUID, Response]]:
        with Client(api.port) as client:
            mine = list(zip(made, moments, strict=True))[number::8]
            return [(one, _change_at(moment, client, one, operation, body)) for one, moment in mine]

    def expire() -> None:
        while not ended.is_set():
            cluster.expire(10)

    with ThreadPoolExecutor(2) as threads:
        endless = [threads.submit(expire) for _ in range(2)]
        responses = [response for each in at_once(8, change) for response in each]
        kept = {one for one, response in responses if response.status == 200}
        wait_until("all others are expired", lambda: statuses(cluster, made)["EXPIRED"] == 100 - len(kept))
        ended.set()
        for thread in endless:
            thread.result()

    assert {response.status for _, response in responses} == {200, 409}
    print(f"{len(kept)} {kept_as}, {100 - len(kept)} expired")
    assert statuses(cluster, list(kept)) == {kept_as: len(kept)}
    assert statuses(cluster, made) == {kept_as: len(kept), "EXPIRED": 100 - len(kept)}
    assert cluster.available(item) == 100 - len(kept)
    cluster.partners.ready()
    cluster.drain()
    check(cluster)


def _expire_at(cluster: Cluster, moments: Mapping[UUID, float]) -> None:
    """Have holds expire at these moments."""
    with cluster.db.begin() as session:
        for one, moment in moments.items():
            expires_at = datetime.fromtimestamp(moment, UTC)
            session.execute(update(table).where(table.c.id == one).values(expires_at=expires_at))


def _change(client: Client, one: UUID, operation: str, body: Mapping[str, int], **headers: str) -> Response:
    return client.post_until_decided(f"/reservations/{one}/{operation}", body, key=f"{operation}-{one}", **headers)


def _change_at(moment: float, client: Client, one: UUID, operation: str, body: Mapping[str, int]) -> Response:
    """Send a request at a moment of this machine's clock, which PostgreSQL uses as well."""
    time.sleep(max(0.0, moment - time.time()))
    return _change(client, one, operation, body)


def _won(responses: Sequence[Sequence[Response]], orders: Sequence[str], to: str) -> int:
    won = [each for each, order in zip(responses, orders, strict=True) if order == to]
    return sum(response.status == 200 for each in won for response in each)
