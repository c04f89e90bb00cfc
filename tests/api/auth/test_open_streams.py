"""Streams that are open when their credentials end: they end as well, and say why."""

import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from api.auth.gate import Gate
from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from domain.access import Role, api_keys
from domain.runtime.settings import Settings
from tests.api.auth.identity import AUDIENCE, ISSUER, IdentityProvider, SigningKey
from tests.api.grpc.test_query import many
from tests.support.broken_tables import missing
from tests.support.builders import Db
from tests.support.feed import appended
from tests.support.grpc_process import ServedGrpc, serving_grpc
from tests.support.sse import Stream, streaming
from tests.support.waiting import PATIENCE_SECONDS, wait_until

#: A stream ends within this time after its credentials have.
LAPSED_SECONDS = 5.0

#: A token is believed for so long after its end: the default of AUTH_LEEWAY_SECONDS.
LEEWAY_SECONDS = 60

#: More reservations than are read meanwhile.
MANY = 10_000

#: A connection that keeps few reservations for a client that has not read them.
SMALL_WINDOW = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]


def a_key(db: Db, name: str = "till") -> str:
    with db.begin() as session:
        return f"Bearer {api_keys.create(session, name, [Role.STAFF], who='ann')}"


def revoke(db: Db, name: str = "till") -> None:
    with db.begin() as session:
        api_keys.revoke(session, name, who="ann")


def has_ended(stream: Stream, *, reason: str) -> bool:
    """Read a stream to its end. Return whether the last of it is a problem with this reason, and no event."""
    (last,) = stream.rest()
    assert (last.id, last.event) == (None, "problem")
    problem: dict[str, Any] = last.data
    assert (problem["status"], problem["type"]) == (401, "/problems/not-authenticated")
    return bool(problem["reason"] == reason)


def test_a_stream_ends_within_seconds_of_the_revocation_of_its_key_and_says_why(api: httpx.Client, db: Db) -> None:
    spied = a_key(db)
    with streaming(api, Authorization=spied) as stream, streaming(api, Authorization=a_key(db, "other")) as other:
        appended(db)
        assert [one.id for one in stream.take(1)] == ["1"]
        revoke(db)
        began = time.monotonic()
        assert has_ended(stream, reason="the API key is not known, expired or revoked")
        took = time.monotonic() - began
        appended(db)
        assert [one.id for one in other.take(2)] == ["1", "2"], "a stream with another key does not end"

    print(f"ended after {took:.1f} s")
    assert took < LAPSED_SECONDS


def test_a_stream_ends_with_its_token_and_continues_with_another_one(
    api: httpx.Client, key: SigningKey, db: Db
) -> None:
    ends_at = int(time.time()) + 3
    with streaming(api, Authorization=f"Bearer {key.token('staff', exp=ends_at - LEEWAY_SECONDS)}") as stream:
        appended(db)
        (seen,) = stream.take(1)
        assert has_ended(stream, reason="the token has expired")
        assert 0 <= time.time() - ends_at < LAPSED_SECONDS
    appended(db)

    renewed = {"Authorization": f"Bearer {key.token('staff')}", "Last-Event-ID": str(seen.id)}
    with streaming(api, **renewed) as stream:
        assert [one.id for one in stream.take(1)] == ["2"]


def test_a_stream_outlives_a_time_in_which_keys_can_not_be_read(api: httpx.Client, db: Db) -> None:
    unknown = {"Authorization": "Bearer hf_0123456789abcdef_x"}
    with streaming(api, Authorization=a_key(db)) as stream:
        with missing(db, "api_keys"):
            # So it was tried to read them, in vain.
            wait_until("an unknown key is answered 503", lambda: api.get("/items", headers=unknown).status_code == 503)
            appended(db)
            assert [one.id for one in stream.take(1)] == ["1"]
        revoke(db)
        assert has_ended(stream, reason="the API key is not known, expired or revoked")


def test_credentials_that_nobody_can_check_have_not_ended(
    settings: Settings, provider: IdentityProvider, key: SigningKey
) -> None:
    """The identity provider answers nothing that could be a document, and has not answered before."""
    wanted = settings.model_copy(
        update={"auth": "token", "auth_jwks_url": provider.url, "auth_issuer": ISSUER, "auth_audience": AUDIENCE}
    )
    gate = Gate.of(wanted)

    assert gate.lapse_of(f"Bearer {key.token('staff')}") is None
    assert gate.lapse_of("Bearer x") is not None


@pytest.fixture(scope="module")
def served(settings: Settings, provider: IdentityProvider) -> Iterator[ServedGrpc]:
    with serving_grpc(AUTH="token", AUTH_JWKS_URL=provider.url, AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE) as served:
        yield served


@pytest.mark.slow
def test_a_query_ends_within_seconds_of_the_revocation_of_its_key_and_says_why(served: ServedGrpc, db: Db) -> None:
    many(db, MANY, note="x" * 500)
    with grpc.insecure_channel(served.address, SMALL_WINDOW) as channel:
        service = ReservationServiceStub(channel)
        stream = service.Query(proto.QueryRequest(), metadata=[("authorization", a_key(db))], timeout=PATIENCE_SECONDS)
        next(stream)
        revoke(db)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as ended:
            for _ in stream:
                # As slow as a reader may be who takes 1,000 of them in 4 s.
                time.sleep(0.002)
        took = time.monotonic() - began

    print(f"ended after {took:.1f} s")
    assert (ended.value.code(), took < LAPSED_SECONDS) == (grpc.StatusCode.UNAUTHENTICATED, True)
    assert "API key" in str(ended.value.details())
    assert served.faults() == []
