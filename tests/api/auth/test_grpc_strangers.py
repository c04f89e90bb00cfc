"""Calls of gRPC whose credentials nobody knows: however many they are, those whose credentials are known are served."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import grpc
import pytest

from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from api.grpc.query import STREAMS
from api.grpc.server import MOST_CALLS
from domain.runtime.settings import Settings
from tests.api.auth.identity import AUDIENCE, ISSUER, IdentityProvider, SigningKey, an_identity_provider
from tests.api.grpc.requests import UNKNOWN_ID, hour
from tests.support.builders import Db
from tests.support.grpc_process import ServedGrpc, serving_grpc

pytestmark = pytest.mark.slow

#: Further than any call waits.
HANGS_SECONDS = 60.0

GET = proto.GetRequest(id=UNKNOWN_ID)
WINDOW = proto.QueryRequest(start=hour(0), end=hour(1))

Metadata = list[tuple[str, str]]


@pytest.fixture
def provider(key: SigningKey) -> Iterator[IdentityProvider]:
    with an_identity_provider(key) as provider:
        yield provider


@pytest.fixture
def served(settings: Settings, provider: IdentityProvider, db: Db) -> Iterator[ServedGrpc]:
    with serving_grpc(AUTH="token", AUTH_JWKS_URL=provider.url, AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE) as served:
        yield served


@pytest.fixture
def known(served: ServedGrpc, provider: IdentityProvider, key: SigningKey) -> Metadata:
    """The credentials of somebody who was served before. From then on the identity provider hangs."""
    sender = bearing(key.token("staff"))
    with served.calling() as service:
        assert list(service.Query(WINDOW, metadata=sender)) == []
    provider.delay_seconds = HANGS_SECONDS
    return sender


def bearing(token: str) -> Metadata:
    return [("authorization", f"Bearer {token}")]


def strangers(key: SigningKey, number: int) -> Iterator[Metadata]:
    """Credentials that each name another key, which the identity provider might have."""
    return (bearing(key.token("staff", headers={"kid": str(uuid4())})) for _ in range(number))


def got(service: ReservationServiceStub, metadata: Metadata) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        service.get(GET, metadata=metadata)
    code: grpc.StatusCode = refused.value.code()
    return code


def streamed(service: ReservationServiceStub, metadata: Metadata) -> list[Any]:
    return list(service.Query(WINDOW, metadata=metadata))


@pytest.mark.parametrize(
    ("method", "number", "serve", "answer"),
    [("get", MOST_CALLS + 100, got, grpc.StatusCode.NOT_FOUND), ("Query", 4 * STREAMS, streamed, [])],
)
def test_who_is_known_is_served_beside_strangers_whose_keys_can_not_be_read(
    served: ServedGrpc,
    known: Metadata,
    key: SigningKey,
    method: str,
    number: int,
    serve: Callable[[ReservationServiceStub, Metadata], object],
    answer: object,
) -> None:
    with ExitStack() as stack:
        stubs = [stack.enter_context(served.calling()) for _ in range(4)]
        healthy = stack.enter_context(served.calling())
        calls = [
            stubs[place % 4].get.future(GET, metadata=sender)
            if method == "get"
            else stubs[place % 4].Query(WINDOW, metadata=sender)
            for place, sender in enumerate(strangers(key, number))
        ]
        answers = [serve(healthy, known) for _ in range(20)]
        codes = {call.code() for call in calls}

    assert answers == [answer] * 20
    # Those of whom there are too many, those who wait in vain, and those who make room for somebody else.
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert served.faults() == []
