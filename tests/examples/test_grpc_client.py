"""The client of examples/grpc_client.py, on a real server."""

from datetime import timedelta

import grpc
import pytest

from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from examples.grpc_client import Client, NotFree, main
from tests.api.grpc.conftest import served_grpc, service, stub  # noqa: F401  # fixtures
from tests.api.grpc.requests import NOON
from tests.support.grpc_process import ServedGrpc


def test_a_room_is_booked_once_and_the_alternative_is_taken(
    served_grpc: ServedGrpc,  # noqa: F811
    service: ReservationServiceStub,  # noqa: F811
) -> None:
    end = NOON + timedelta(hours=2)
    with grpc.insecure_channel(served_grpc.address) as channel:
        client = Client(channel, "tests")
        first, again = (client.reserve("ann", "room-1", NOON, end, key="k") for _ in range(2))
        with pytest.raises(NotFree) as refused:
            client.reserve("ben", "room-1", NOON, end, key="k2")
        free = refused.value.alternatives[0]
        second = client.reserve("ben", free.resource_id, free.start, free.end, key="k2")
        confirmed = client.confirm(first.id)
        booked = [*client.booked("room-1", NOON - timedelta(days=7), NOON + timedelta(days=7))]

    assert first == again
    assert (first.start, first.end, first.status, confirmed.status) == (NOON, end, "PENDING", "CONFIRMED")
    assert {one.id for one in booked} == {first.id, second.id}


def test_the_example_shows_a_booking_a_refusal_and_the_alternative(
    served_grpc: ServedGrpc,  # noqa: F811
    service: ReservationServiceStub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    main("any", served_grpc.address)

    first, refusal, second, counted = capsys.readouterr().out.splitlines()
    assert first.startswith("Booked(") and second.startswith("Booked(")
    assert refusal.startswith("Requested 1 of room-1 from ")
    assert counted == "2 booked around that time"
