"""A server for the whole run, and a client of it on an empty database for each test."""

from collections.abc import Iterator

import pytest

from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from domain.runtime.settings import Settings
from tests.support.builders import Db
from tests.support.grpc_process import ServedGrpc, serving_grpc


@pytest.fixture(scope="session")
def served_grpc(settings: Settings) -> Iterator[ServedGrpc]:
    with serving_grpc() as served:
        yield served


@pytest.fixture(scope="session")
def stub(served_grpc: ServedGrpc) -> Iterator[ReservationServiceStub]:
    with served_grpc.calling() as stub:
        yield stub


@pytest.fixture
def service(served_grpc: ServedGrpc, stub: ReservationServiceStub, db: Db) -> Iterator[ReservationServiceStub]:
    """A client on an empty database. Whatever the test sends, the server must log no error of its own."""
    yield stub
    assert served_grpc.faults() == []
