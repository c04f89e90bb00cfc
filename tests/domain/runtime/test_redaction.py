"""Redaction: what looks like a secret does not get into a log, and nothing needs that in ordinary use."""

import json
import time
from collections.abc import Iterator

import pytest

from domain.runtime.redaction import REDACTED, redact
from domain.runtime.settings import Settings
from tests.api.auth.identity import AUDIENCE, ISSUER, SigningKey, an_identity_provider
from tests.support.api_process import Served, serving

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl_-x"


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        (f"token={JWT}", JWT),
        (json.dumps({"error": f"Authorization: Bearer {JWT}"}), JWT),
        (json.dumps({"headers": {"authorization": "Bearer opaque-token"}}), "opaque-token"),
        (json.dumps({"nested": json.dumps({"Authorization": "Basic dXNlcjpwYXNz"})}), "dXNlcjpwYXNz"),
        ("authorization: Token abc123", "abc123"),
        ("BEARER abc.def", "abc.def"),
        ("the key hf_0123abcd_secretsecret was used", "secretsecret"),
        ("secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("postgresql://me:hunter2@db.example/x failed", "hunter2"),
        ("redis://:p/a:ss@10.0.0.1:6379/0", "p/a:ss"),
    ],
)
def test_a_secret_is_taken_out_of_a_line(line: str, secret: str) -> None:
    redacted = redact(line)

    assert secret not in redacted and REDACTED in redacted


def test_a_line_of_json_stays_json() -> None:
    line = json.dumps({"url": "amqp://me:pw@host/", "authorization": f"Bearer {JWT}", "count": 3})

    assert json.loads(redact(line))["count"] == 3


@pytest.mark.parametrize(
    "line",
    ["http://127.0.0.1:8000/items", "ann@example.com", "basic rules", "bearer of news", '{"url": "https://a:443/b"}'],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert redact(line) == line or line.startswith(("basic", "bearer"))


@pytest.mark.parametrize("piece", ["eyJ", "hf_a", "://a:", "Bearer ", "authorization:", "eyJaaaaaaaa.", "@"])
def test_a_line_that_was_made_to_be_slow_is_not(piece: str) -> None:
    line = piece * (100_000 // len(piece))
    began = time.perf_counter()

    redact(line)

    assert time.perf_counter() - began < 1


@pytest.fixture
def chatty(settings: Settings) -> Iterator[tuple[Served, SigningKey]]:
    """An API that logs as much as it can, and the key of its identity provider."""
    key = SigningKey.new()
    with an_identity_provider(key) as provider:
        identity = {"AUTH_JWKS_URL": provider.url, "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}
        with serving(AUTH="token", LOG_LEVEL="DEBUG", **identity) as served:
            yield served, key


def test_nothing_needs_to_be_redacted_in_ordinary_use(chatty: tuple[Served, SigningKey]) -> None:
    served, key = chatty
    good, expired = key.token("staff"), key.token("staff", exp=1)
    for credential in (good, expired, good[:-6], "hf_nobody_secret", "eyJ.e30.x", "nonsense"):
        headers = {"Authorization": f"Bearer {credential}"}
        served.client.get("/items", headers=headers)
        served.client.post("/reservations", headers=headers, json={"sku": "none", "quantity": 1})
        served.client.post("/reservations", headers=headers, content=b"{")

    logged = served.logged()

    assert REDACTED not in logged
    assert good not in logged and "secret" not in logged
