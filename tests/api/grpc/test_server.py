"""The server in the process of the test, so that it can be run without one of its guards."""

from collections.abc import Iterator

import grpc
import pytest

from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from api.grpc.server import Server
from domain.runtime.settings import Settings
from tests.api.grpc.requests import refused, reserving
from tests.support.builders import Db, routes_of
from tests.support.ports import free_port


@pytest.fixture
def stub(settings: Settings, db: Db) -> Iterator[ReservationServiceStub]:
    port = free_port()
    server = Server(settings.model_copy(update={"grpc_port": port}), routes_of(db))
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield ReservationServiceStub(channel)
    server.stop()


def test_a_call_with_a_key_gets_its_first_answer_again(stub: ReservationServiceStub) -> None:
    answers = [stub.reserve(reserving(), metadata=[("idempotency-key", "k")]) for _ in range(2)]

    assert answers[0] == answers[1]


def test_a_key_is_for_one_call_only(stub: ReservationServiceStub) -> None:
    stub.reserve(reserving(), metadata=[("idempotency-key", "k")])

    refusal = refused(stub.reserve, reserving(1, 2), metadata=[("idempotency-key", "k")])

    assert refusal.details["ErrorInfo"].reason == "IDEMPOTENCY_KEY_REUSED"
