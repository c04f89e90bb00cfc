"""An API that wants tokens, and the identity provider that signs them."""

from collections.abc import Iterator

import httpx
import pytest
from redis import Redis
from sqlalchemy.orm import Session, sessionmaker

from deploy.embedded import RedisServer
from domain.runtime.settings import Settings
from tests.api.auth.identity import AUDIENCE, ISSUER, IdentityProvider, SigningKey, an_identity_provider
from tests.support.api_process import Served, serving


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.new()


@pytest.fixture(scope="module")
def provider(key: SigningKey) -> Iterator[IdentityProvider]:
    with an_identity_provider(key) as provider:
        yield provider


@pytest.fixture(scope="module")
def guarded(settings: Settings, provider: IdentityProvider) -> Iterator[Served]:
    """An API that wants tokens."""
    with serving(AUTH="token", AUTH_JWKS_URL=provider.url, AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE) as served:
        yield served


@pytest.fixture
def api(guarded: Served, db: sessionmaker[Session]) -> Iterator[httpx.Client]:
    """A client of that API without a token. The API must log no error of its own."""
    yield guarded.client
    assert guarded.faults() == []


@pytest.fixture(autouse=True)
def _nothing_counted(redis: RedisServer) -> None:
    """Forget the counts of other tests: processes with the same limits share them, for as long as a day."""
    with Redis.from_url(redis.url) as client:
        for name in client.scan_iter("*rate-limits*"):
            client.delete(name)
