"""Health and reflection, as tools and orchestrators ask for them."""

import time
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from sqlalchemy import text

from domain.runtime.settings import Settings
from tests.api.grpc.requests import refused
from tests.support.builders import Db
from tests.support.grpc_process import ServedGrpc, serving_grpc
from tests.support.grpcurl import call
from tests.support.waiting import wait_until

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture
def channel(served_grpc: ServedGrpc) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served_grpc.address) as channel:
        yield channel


def watch(channel: grpc.Channel, service: str = "") -> Iterator[int]:
    """Yield the status of a service whenever it changes."""
    method = channel.unary_stream(
        "/grpc.health.v1.Health/Watch", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
    )
    for answer in method(HealthCheckRequest(service=service), timeout=60):
        yield answer.status


@pytest.mark.parametrize("service", ["", "ReservationService"])
def test_a_server_that_works_is_serving(served_grpc: ServedGrpc, channel: grpc.Channel, service: str) -> None:
    assert served_grpc.health(service) == SERVING
    assert next(watch(channel, service)) == SERVING


def test_the_health_of_another_service_is_unknown(served_grpc: ServedGrpc, channel: grpc.Channel) -> None:
    refusal = refused(lambda: served_grpc.health("Other"))

    assert (refusal.code, refusal.text) == (grpc.StatusCode.NOT_FOUND, "No service has the name Other.")
    assert next(watch(channel, "Other")) == HealthCheckResponse.SERVICE_UNKNOWN


@pytest.mark.slow
def test_a_server_is_not_serving_while_its_database_does_not_answer(settings: Settings, db: Db) -> None:
    """The table that the probe reads is locked for a while."""
    with serving_grpc() as served, grpc.insecure_channel(served.address) as channel:
        wait_until("it is serving", lambda: served.health() == SERVING)
        watching = watch(channel)
        seen = [next(watching)]
        with db.begin() as session:
            session.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
            seen.append(next(watching))
            assert served.health("ReservationService") == NOT_SERVING
        seen.append(next(watching))

        assert seen == [SERVING, NOT_SERVING, SERVING]
        assert "health.changed" in served.log.read_text()


@pytest.mark.slow
def test_those_who_watch_are_told_that_a_server_stops(settings: Settings) -> None:
    with serving_grpc() as served, grpc.insecure_channel(served.address) as channel:
        watching = watch(channel)
        assert next(watching) == SERVING
        began = time.monotonic()
        served.process.terminate()

        assert next(watching) == NOT_SERVING
        assert served.process.wait(10) == 0
        assert time.monotonic() - began < 10


def test_reflection_describes_what_is_served(channel: grpc.Channel) -> None:
    described = ProtoReflectionDescriptorDatabase(channel)

    assert {*described.get_services()} == {
        "ReservationService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_a_client_that_knows_nothing_can_make_a_call_by_reflection(served_grpc: ServedGrpc, db: Db) -> None:
    """As grpcurl does."""
    wanted = {"user_id": "ann", "resource_id": "room-1", "start": "2030-01-31T12:00:00Z", "end": "2030-01-31T13:00:00Z"}

    answer = call(served_grpc.address, "ReservationService", "reserve", {"reservation": wanted}, ())

    assert answer["reservation"].pop("id")
    assert answer == {"reservation": wanted | {"status": "PENDING"}}
