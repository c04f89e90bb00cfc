"""Many clients at once for the same time of a calendar, over real HTTP and gRPC: what is sold never overlaps."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import case, func, select, text, update

from domain.calendars.table import occupancies
from domain.items import Item
from domain.reservations.lifecycle import Kind, Status
from domain.reservations.table import history
from domain.reservations.table import reservations as table
from tests.proofs.checker import check
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.cluster.processes import Api, Grpc
from tests.proofs.conftest import Open
from tests.proofs.load import Client, Response, at_once
from tests.proofs.sold_time import check_sold, quarter
from tests.support.waiting import PATIENCE_SECONDS

CLIENTS = 32
TURNS = 12

#: Quarters of an hour of a day, so that much overlaps, nests and touches.
STARTS, LENGTHS = 48, (1, 2, 3, 4, 8)

#: Busy is an answer too: the API waits for the lock of an item until the client's time is over.
BUSY = 503


#: Two processes that serve a cluster. The lock of a calendar is what keeps them from each other.
Pair = tuple[Api | Grpc, Api | Grpc]


def wanted(dice: Random, item: Item, most: int = 4, **fields: object) -> dict[str, Any]:
    """A period, and a quantity of 1 to `most` that the calendar has."""
    start, length = dice.randrange(STARTS), dice.choice(LENGTHS)
    quantity = dice.randint(1, min(most, item.capacity or 1))
    times = {"start": quarter(start).isoformat(), "end": quarter(start + length).isoformat()}
    return {"quantity": quantity, **times, **fields}


def two_apis(cluster: Cluster) -> Pair:
    first, second = cluster.api(), cluster.api()
    return first.ready(), second.ready()


def api_and_grpc(cluster: Cluster) -> Pair:
    api, service = cluster.api(), cluster.grpc()
    return api.ready(), service.ready()


def grpc_and_api(cluster: Cluster) -> Pair:
    api, service = api_and_grpc(cluster)
    return service, api


def deadlocks(cluster: Cluster) -> int:
    with cluster.db.begin() as session:
        counted = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int(session.execute(counted).scalar_one())


@pytest.mark.parametrize("start", [two_apis, api_and_grpc])
@pytest.mark.parametrize("capacity", [1, 7])
def test_32_clients_that_want_the_same_day_get_what_one_after_another_would(
    open_cluster: Open, seed: int, capacity: int, start: Callable[[Cluster], Pair]
) -> None:
    """Over HTTP they want up to 4 units, over gRPC one."""
    cluster = open_cluster()
    item = cluster.a_calendar(capacity, buffer_after_seconds=900)
    pair = start(cluster)

    def some(number: int) -> list[tuple[Mapping[str, Any], Response]]:
        dice, server = Random(seed * 1_000 + number), pair[number % 2]
        asked = [wanted(dice, item, 4 if isinstance(server, Api) else 1, sku=item.sku) for _ in range(TURNS)]
        with server.client() as client:
            return [(one, client.post("/reservations", one)) for one in asked]

    answers = [answer for each in at_once(CLIENTS, some) for answer in each]

    print(Counter(response.status for _, response in answers))
    assert {201, 409} <= {response.status for _, response in answers} <= {201, 409, BUSY}
    check_that_the_refused_did_not_fit(cluster, item, answers)
    check_the_cluster(cluster)


def check_the_cluster(cluster: Cluster) -> None:
    """Check that nobody waited for ever or met a fault, and that all that happened is delivered in its order."""
    assert deadlocks(cluster) == 0
    assert cluster.log_of("call.failed") == []
    cluster.partners.ready()
    cluster.drain()
    check(cluster)


def check_that_the_refused_did_not_fit(
    cluster: Cluster, item: Item, answers: Sequence[tuple[Mapping[str, Any], Response]]
) -> None:
    """Nothing was given back, so what did not fit once fits no more. Each refusal says what was free at some time."""
    ledgers = check_sold(cluster, item)
    for asked, response in answers:
        if response.status == 409:
            taken = {f"{name}s_at": datetime.fromisoformat(asked[name]) for name in ("start", "end")}
            assert asked["quantity"] > ledgers[-1].free(taken)
            assert response.body["type"] == "/problems/not-free"
            assert asked["quantity"] > response.body["available_quantity"]
            assert response.body["available_quantity"] in {ledger.free(taken) for ledger in ledgers}


def test_reschedules_cancellations_and_holds_that_lapse_sell_no_moment_twice(open_cluster: Open, seed: int) -> None:
    """Every client reserves of a room and of seven, for a second or for long, and changes what it has."""
    cluster = open_cluster()
    items = [cluster.a_calendar(1, buffer_before_seconds=900), cluster.a_calendar(7, buffer_after_seconds=1800)]
    apis = two_apis(cluster)

    def some(number: int) -> list[Response]:
        dice = Random(seed * 1_000 + number)
        with Client(apis[number % 2].port) as client:
            return an_eventful_day(client, dice, items)

    answers = [response for each in at_once(CLIENTS, some) for response in each]

    print(Counter(response.status for response in answers))
    assert {200, 201, 409} <= {response.status for response in answers} <= {200, 201, 409, BUSY}
    for item in items:
        check_sold(cluster, item)
    assert happened(cluster) >= {"CANCELLED", "CONFIRMED", "EXPIRED", "changed"}
    check_the_cluster(cluster)


def an_eventful_day(client: Client, dice: Random, items: Sequence[Item]) -> list[Response]:
    answers, mine = [], []
    for _ in range(TURNS * 2):
        item = dice.choice(items)
        made = client.post("/reservations", wanted(dice, item, item_id=item.id, ttl_seconds=dice.choice([1, 600])))
        answers.append(made)
        if made.status == 201:
            mine.append((item, made.body["id"]))
        if mine and dice.random() < 0.7:
            answers.append(a_change(client, dice, *dice.choice(mine)))
    return answers


def a_change(client: Client, dice: Random, item: Item, made: str) -> Response:
    match dice.choice(["reschedule", "reschedule", "cancel", "confirm"]):
        case "reschedule":
            return client.put(f"/reservations/{made}", wanted(dice, item))
        case operation:
            return client.post(f"/reservations/{made}/{operation}")


def happened(cluster: Cluster) -> set[str]:
    """Return the statuses that were reached, and `changed` if fields were."""
    what = case((history.c.kind == Kind.CHANGED, history.c.kind), else_=history.c.to_status)
    with cluster.db.begin() as session:
        return set(session.execute(select(what).distinct()).scalars())


def test_of_32_reschedules_to_the_same_hour_as_many_succeed_as_fit(open_cluster: Open) -> None:
    """Every client has a hold of its own, and moves it to the same hour as all others, hour after hour."""
    cluster = open_cluster()
    item = cluster.a_calendar(7)
    apis = two_apis(cluster)
    hours = [hour_from(quarter(STARTS + 4 * number)) for number in range(10)]
    begin = Barrier(CLIENTS)

    def move(number: int) -> list[Response]:
        with Client(apis[number % 2].port) as client:
            made = client.post("/reservations", {"item_id": item.id, "quantity": 1, **hour_from(quarter(-4 * number))})
            answers = []
            for hour in hours:
                begin.wait(PATIENCE_SECONDS)
                answers.append(client.put(f"/reservations/{made.body['id']}", hour))
            return answers

    moved = list(zip(*at_once(CLIENTS, move), strict=True))

    won = [Counter(response.status for response in answers) for answers in moved]
    print(won)
    assert all(counted.keys() <= {200, 409, BUSY} for counted in won)
    assert all(counted[200] == 7 or counted[BUSY] for counted in won)
    check_sold(cluster, item)
    check_the_cluster(cluster)


def hour_from(start: datetime) -> Mapping[str, str]:
    return {"start": start.isoformat(), "end": (start + timedelta(hours=1)).isoformat()}


@pytest.mark.parametrize("start", [two_apis, api_and_grpc, grpc_and_api])
def test_of_two_holds_that_overlap_never_both_are_confirmed(
    open_cluster: Open, seed: int, start: Callable[[Cluster], Pair]
) -> None:
    """Each hold of a room is confirmed at about the moment when it lapses, and when another one wants the time."""
    cluster = open_cluster()
    rooms = [cluster.a_calendar(1) for _ in range(40)]
    services = start(cluster)
    with services[0].client() as client:
        first = [client.post("/reservations", {"sku": room.sku, **TEN_TO_TWELVE}).body["id"] for room in rooms]
    begins = [Barrier(2) for _ in range(8)]

    def confirm(pair: int) -> list[Response]:
        dice, answers = Random(seed + pair), []
        with services[0].client() as client:
            for one in first[pair::8]:
                let_lapse_in(cluster, one, dice.choice(UNTIL_IT_LAPSES))
                begins[pair].wait(PATIENCE_SECONDS)
                answers.append(client.post(f"/reservations/{one}/confirm"))
        return answers

    def reserve_and_confirm(pair: int) -> list[Response]:
        answers = []
        with services[1].client() as client:
            for room in rooms[pair::8]:
                begins[pair].wait(PATIENCE_SECONDS)
                made = client.post("/reservations", {"sku": room.sku, **ELEVEN_TO_ONE})
                answers.append(made)
                if made.status == 201:
                    answers.append(client.post(f"/reservations/{made.body['id']}/confirm"))
        return answers

    both = at_once(16, lambda number: confirm(number) if number < 8 else reserve_and_confirm(number - 8))

    statuses = Counter(response.status for each in both for response in each)
    won = confirmed_in(cluster)
    first_won = sum(str(one) in first for one in won)
    print(f"{statuses}: the first hold of {first_won} rooms is confirmed, and the second one of {len(won) - first_won}")
    assert statuses.keys() <= {200, 201, 409, BUSY}
    assert len(won) == len(set(won.values()))
    assert 0 < first_won < len(won)
    for room in rooms:
        check_sold(cluster, room)
    check_the_cluster(cluster)


TEN_TO_TWELVE = {"quantity": 1, "start": quarter(40).isoformat(), "end": quarter(48).isoformat()}
ELEVEN_TO_ONE = {"quantity": 1, "start": quarter(44).isoformat(), "end": quarter(52).isoformat()}

#: Seconds. A confirmation takes some milliseconds. A hold that has lapsed is never confirmed, and one that lapses in a
#: minute always.
UNTIL_IT_LAPSES = (0, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.05, 60)


def let_lapse_in(cluster: Cluster, one: str, seconds: float) -> None:
    """Have a hold lapse so many seconds from now on."""
    at = func.now() + timedelta(seconds=seconds)
    with cluster.db.begin() as session:
        session.execute(update(table).where(table.c.id == one).values(expires_at=at))
        session.execute(update(occupancies).where(occupancies.c.reservation_id == one).values(held_until=at))


def confirmed_in(cluster: Cluster) -> Mapping[UUID, int]:
    """Return the room of each reservation that is confirmed."""
    confirmed = select(table.c.id, table.c.item_id).where(table.c.status == Status.CONFIRMED)
    with cluster.db.begin() as session:
        return dict(map(tuple, session.execute(confirmed)))
