"""Keys of an identity provider that are stored: processes that start while it is down let in whom the others let in."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from sqlalchemy import text

from api.auth.provider_keys import ProviderKeys
from api.auth.stored_keys import source_of
from api.grpc.proto import reservation_pb2 as proto
from domain.access.provider_keys import LONGEST
from domain.runtime.settings import Settings
from tests.api.auth.identity import AUDIENCE, ISSUER, IdentityProvider, SigningKey, an_identity_provider
from tests.api.grpc.requests import hour
from tests.support.api_process import Served, serving
from tests.support.broken_tables import missing
from tests.support.builders import Db
from tests.support.grpc_process import serving_grpc
from tests.support.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.slow

WINDOW = proto.QueryRequest(start=hour(0), end=hour(1))


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.new()


@pytest.fixture
def provider(settings: Settings, key: SigningKey) -> Iterator[IdentityProvider]:
    with an_identity_provider(key) as provider:
        yield provider


def guarded(provider: IdentityProvider, **settings: str) -> AbstractContextManager[Served]:
    given = {"AUTH": "token", "AUTH_JWKS_URL": provider.url, "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}
    return serving(**(given | settings))


def status(served: Served, key: SigningKey) -> int:
    return served.client.get("/items", headers={"Authorization": f"Bearer {key.token('staff')}"}).status_code


def stored(db: Db) -> list[tuple[Any, ...]]:
    with db.begin() as session:
        return [tuple(row) for row in session.execute(text("SELECT source, document FROM identity_provider_keys"))]


def serve_once(db: Db, provider: IdentityProvider, key: SigningKey) -> None:
    """Let a process read the keys, and end."""
    with guarded(provider) as served:
        assert status(served, key) == 200
        wait_until(
            "the keys are stored", lambda: [source for source, _ in stored(db) if source_of(provider.url) == source]
        )


@pytest.mark.parametrize("trouble", [{"status": 503}, {"delay_seconds": 60.0}], ids=["down", "hanging"])
def test_a_process_that_starts_while_the_provider_is_down_lets_in_who_was_let_in_before(
    db: Db, provider: IdentityProvider, key: SigningKey, trouble: dict[str, Any]
) -> None:
    serve_once(db, provider, key)
    for name, value in trouble.items():
        setattr(provider, name, value)

    with guarded(provider) as served:
        first = served.client.get("/items", headers={"Authorization": f"Bearer {key.token('staff')}"})
        unknown = status(served, SigningKey.new("key-9"))
        wait_until("it says so", lambda: served.client.get("/health/ready").json()["tokens"].startswith("former keys"))

    assert (first.status_code, unknown) == (200, 503)
    assert first.elapsed.total_seconds() < 2
    assert served.faults() == []


def test_a_grpc_process_has_them_as_well(db: Db, provider: IdentityProvider, key: SigningKey) -> None:
    serve_once(db, provider, key)
    provider.status = 503
    settings = {"AUTH": "token", "AUTH_JWKS_URL": provider.url, "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}

    with serving_grpc(**settings) as served, served.calling() as service:
        sender = [("authorization", f"Bearer {key.token('staff')}")]
        assert list(service.Query(WINDOW, metadata=sender)) == []


def test_what_the_provider_serves_takes_the_place_of_what_is_stored(
    db: Db, provider: IdentityProvider, key: SigningKey
) -> None:
    serve_once(db, provider, key)
    new = SigningKey.new("key-2")
    provider.keys = [new]

    with guarded(provider) as served:
        assert status(served, new) == 200
        assert status(served, key) == 401
        wait_until("the new keys are stored", lambda: ['"key-2"' in row[1] for row in stored(db)] == [True])


def test_keys_that_all_were_withdrawn_are_withdrawn_for_who_starts_later(
    db: Db, provider: IdentityProvider, key: SigningKey
) -> None:
    serve_once(db, provider, key)
    provider.keys = []
    with guarded(provider):
        wait_until("that is stored", lambda: [row[1] for row in stored(db)] == ['{"keys": []}'])
    provider.status = 503

    with guarded(provider) as served:
        assert status(served, key) == 503


def change(db: Db, assignment: str, **values: object) -> None:
    with db.begin() as session:
        session.execute(text(f"UPDATE identity_provider_keys SET {assignment}"), values)


def test_stored_keys_that_are_too_old_are_not_believed(db: Db, provider: IdentityProvider, key: SigningKey) -> None:
    serve_once(db, provider, key)
    provider.status = 503
    change(db, "read_at = read_at - CAST(:age AS interval)", age=LONGEST)

    with guarded(provider) as served:
        assert status(served, key) == 503
        assert served.client.get("/health/ready").json()["tokens"].startswith("no keys")


def test_stored_keys_of_another_provider_are_not_believed(db: Db, provider: IdentityProvider, key: SigningKey) -> None:
    serve_once(db, provider, key)
    provider.status = 503

    with guarded(provider, AUTH_JWKS_URL=f"{provider.url}?of=another") as served:
        assert status(served, key) == 503


#: What somebody may have written into the table.
CHANGED = {
    "no JSON": "<html>",
    "a shared secret": '{"keys": [{"kty": "oct", "kid": "key-1", "k": "c2VjcmV0", "alg": "HS256"}]}',
    "a number": "17",
}


@pytest.mark.parametrize("changed", CHANGED)
def test_what_is_stored_is_checked_as_strictly_as_what_the_provider_serves(
    db: Db, provider: IdentityProvider, key: SigningKey, changed: str
) -> None:
    serve_once(db, provider, key)
    provider.status = 503
    change(db, "document = :document", document=CHANGED[changed])

    with guarded(provider) as served:
        assert status(served, key) == 503
        assert "jwks.stored_unusable" in served.logged()
        provider.status = 200
        assert status(served, key) == 200

    assert served.faults() == []


def test_without_the_table_the_keys_of_the_provider_serve(db: Db, provider: IdentityProvider, key: SigningKey) -> None:
    with guarded(provider) as before:
        status(before, key)
        with missing(db, "identity_provider_keys"):
            provider.keys = [key, SigningKey.new("key-2")]
            after = status(before, SigningKey.new("key-9")), status(before, key)
            wait_until("it is logged", lambda: "jwks.not_stored" in before.log.read_text())

    assert after == (401, 200)
    assert before.faults() == []


def test_keys_that_are_read_again_are_the_same_while_the_provider_serves_the_same(
    settings: Settings, provider: IdentityProvider, key: SigningKey
) -> None:
    """Then the tokens that were verified by them need not be verified again."""
    other = SigningKey.new("key-2")
    provider.keys = [key, other]
    keys = ProviderKeys(settings, provider.url)
    keys.start()
    try:
        values = []
        for document in ([key, other], [other, key], [other]):
            provider.keys = document
            keys.again().result(PATIENCE_SECONDS)
            values.append(keys.value)
    finally:
        keys.stop()

    assert values[0] is values[1]
    assert [len(value) for value in values] == [2, 2, 1]
