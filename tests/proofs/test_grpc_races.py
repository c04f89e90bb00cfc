"""Clients over HTTP and over gRPC that ask at the same moment, round after round: exactly as many succeed as fit."""

from collections import Counter
from threading import Barrier

from sqlalchemy import func, select

from domain.items import Item
from domain.reservations.table import reservations as table
from tests.proofs.cluster.cluster import Cluster
from tests.proofs.conftest import Open
from tests.proofs.load import Response, at_once
from tests.proofs.sold_time import check_sold, quarter
from tests.proofs.test_calendar_races import BUSY, CLIENTS, api_and_grpc, check_the_cluster
from tests.support.waiting import PATIENCE_SECONDS

#: What clients over HTTP and clients over gRPC want of one room, in quarters of an hour, and how many of both fit.
WANTED = (
    ("the same", ((8, 16), (8, 16)), 1),
    ("shifted", ((8, 16), (12, 20)), 1),
    ("nested", ((8, 16), (10, 12)), 1),
    ("from the same start", ((8, 9), (8, 16)), 1),
    ("touching", ((8, 16), (16, 20)), 2),
)

#: Each of them is wanted so often, at times that are so many quarters of an hour apart.
ROUNDS, APART = 8, 40


def test_of_32_clients_over_both_that_ask_at_once_as_many_succeed_as_fit(open_cluster: Open) -> None:
    cluster = open_cluster()
    room = cluster.a_calendar(1)
    pair = api_and_grpc(cluster)
    rounds = WANTED * ROUNDS
    begin = Barrier(CLIENTS)

    def ask(number: int) -> list[Response]:
        side, answers = number % 2, []
        with pair[side].client() as client:
            for turn, (_, periods, _) in enumerate(rounds):
                begin.wait(PATIENCE_SECONDS)
                answers.append(client.post("/reservations", asked(room, turn, *periods[side])))
        return answers

    made = zip(*at_once(CLIENTS, ask), strict=True)

    for (what, _, fit), answers in zip(rounds, made, strict=True):
        counted = Counter(response.status for response in answers)
        assert counted.keys() <= {201, 409, BUSY}, what
        assert counted[201] == fit or (counted[BUSY] and counted[201] < fit), f"{what}: {counted}"
    check_sold(cluster, room)
    check_the_cluster(cluster)


def asked(room: Item, turn: int, start: int, end: int) -> dict[str, object]:
    """A request for one unit of a room, from one quarter of an hour to another, in the time of a round."""
    times = {"start": quarter(turn * APART + start).isoformat(), "end": quarter(turn * APART + end).isoformat()}
    return {"sku": room.sku, "quantity": 1, **times}


def test_8_clients_with_the_same_key_at_once_make_one_reservation_over_grpc(open_cluster: Open) -> None:
    """They call two processes, which find the key in the database alone. It is for a calendar with room for all."""
    cluster = open_cluster()
    room = cluster.a_calendar(8)
    services = [service.ready() for service in (cluster.grpc(), cluster.grpc())]
    keys = [f"key-{number}" for number in range(20)]
    begin = Barrier(8)

    def send(number: int) -> list[Response]:
        answers = []
        with services[number % 2].client() as client:
            for turn, key in enumerate(keys):
                begin.wait(PATIENCE_SECONDS)
                # A client whose call finds the service busy sends the call again.
                while (answer := client.post("/reservations", asked(room, turn, 8, 16), key=key)).status == BUSY:
                    pass
                answers.append(answer)
        return answers

    for answers in zip(*at_once(8, send), strict=True):
        assert {response.status for response in answers} == {201}
        assert len({response.body["id"] for response in answers}) == 1
        assert [response.replayed for response in answers].count(False) == 1
    assert reservations_in(cluster) == len(keys)
    check_the_cluster(cluster)


def reservations_in(cluster: Cluster) -> int:
    with cluster.db.begin() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()
