"""Identity providers that rotate their keys, are down, slow, huge or wrong."""

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from domain.runtime.settings import Settings
from tests.api.auth.identity import AUDIENCE, ISSUER, IdentityProvider, SigningKey, an_identity_provider
from tests.support.api_process import Served, serving
from tests.support.waiting import wait_until


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


def status(served: Served, key: SigningKey, **token: Any) -> int:
    headers = {"Authorization": f"Bearer {key.token('staff', **token)}"}
    return served.client.get("/items", headers=headers).status_code


def test_a_new_key_is_known_as_soon_as_a_token_is_signed_with_it(provider: IdentityProvider, key: SigningKey) -> None:
    new = SigningKey.new("key-2", "RS256")
    with guarded(provider) as served:
        before = status(served, key)
        provider.keys = [key, new]
        after = [status(served, new), status(served, key)]

    assert (before, after) == (200, [200, 200])


def test_nonsense_does_not_make_the_provider_be_asked_more_than_once_a_second(
    provider: IdentityProvider, key: SigningKey
) -> None:
    with guarded(provider) as served:
        status(served, key)
        asked = provider.asked
        statuses = {status(served, SigningKey.new(f"unknown-{number}")) for number in range(3)}

    assert statuses == {401}
    assert provider.asked - asked <= 3


def test_a_provider_that_was_down_at_the_start_lets_in_as_soon_as_it_is_up(
    provider: IdentityProvider, key: SigningKey
) -> None:
    provider.status = 503
    with guarded(provider) as served:
        before = status(served, key)
        is_alive = served.client.get("/health/live", headers={"Authorization": f"Bearer {key.token('staff')}"})
        provider.status = 200
        after = status(served, key)

    assert (before, is_alive.status_code, after) == (503, 200, 200)


WRONG: Mapping[str, Mapping[str, Any]] = {
    "down": {"status": 503},
    "no JSON": {"body": b"<html>"},
    "another document": {"body": b'{"keys": 17}'},
    "no usable keys": {"body": b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'},
    "huge": {"body": b'{"keys": [' + b" " * 300_000 + b"]}"},
    "nested": {"body": b"[" * 100_000},
    "slow": {"delay_seconds": 60.0},
}


@pytest.mark.parametrize("trouble", WRONG)
def test_while_its_provider_is_in_trouble_the_keys_that_were_read_before_serve(
    provider: IdentityProvider, key: SigningKey, trouble: str
) -> None:
    with guarded(provider) as served:
        before = status(served, key)
        for name, value in WRONG[trouble].items():
            setattr(provider, name, value)
        unknown = status(served, SigningKey.new("key-9"))
        after = status(served, key)

    # Nobody knows whether the provider has that key by now.
    assert (before, unknown, after) == (200, 503, 200)
    assert served.faults() == []


def test_a_key_that_takes_the_place_of_another_under_its_id_is_known_at_once(
    provider: IdentityProvider, key: SigningKey
) -> None:
    new = SigningKey.new(key.kid)
    with guarded(provider) as served:
        before = status(served, key)
        provider.keys = [new]
        after = [status(served, new), status(served, key)]

    assert (before, after) == (200, [200, 401])


def test_wrong_signatures_do_not_make_the_provider_be_asked_more_than_once_a_second_and_keep_nobody_waiting(
    provider: IdentityProvider, key: SigningKey
) -> None:
    with guarded(provider) as served, ThreadPoolExecutor(20) as threads:
        status(served, key)
        provider.delay_seconds = 2.0
        began, asked = time.monotonic(), provider.asked
        strangers = [threads.submit(status, served, SigningKey.new(key.kid)) for _ in range(20)]
        wait_until("the provider is asked", lambda: provider.asked > asked)
        served_meanwhile = [status(served, key) for _ in range(20)]
        took = time.monotonic() - began
        refused = {stranger.result() for stranger in strangers}

    assert (set(served_meanwhile), refused) == ({200}, {401})
    assert took < provider.delay_seconds
    assert provider.asked - asked <= 3


def test_a_wrong_signature_is_wrong_while_the_provider_is_down_too(provider: IdentityProvider, key: SigningKey) -> None:
    with guarded(provider) as served:
        status(served, key)
        provider.status = 503

        assert status(served, SigningKey.new(key.kid)) == 401


def test_for_who_has_failed_too_often_the_keys_are_not_read(provider: IdentityProvider, key: SigningKey) -> None:
    with guarded(provider, RATE_LIMIT_FAILED_AUTH="2/day") as served:
        status(served, key)
        first = [status(served, SigningKey.new(f"unknown-{number}")) for number in range(2)]
        asked, began = provider.asked, time.monotonic()
        then = {status(served, SigningKey.new(f"unknown-{number}")) for number in range(2, 7)}
        took = time.monotonic() - began
        known = status(served, key)

    assert (first, then, known) == ([401, 401], {429}, 200)
    assert provider.asked == asked
    assert took < 5


def test_tokens_without_a_key_id_let_in_before_and_after_a_rotation(
    provider: IdentityProvider, key: SigningKey
) -> None:
    new = SigningKey.new("key-2")
    with guarded(provider) as served:
        before = status(served, key, headers={"kid": None})
        provider.keys = [key, new]
        after = [status(served, one, headers={"kid": None}) for one in (new, key)]
        asked = provider.asked
        later = {status(served, new, headers={"kid": None}, jti=f"{number}") for number in range(5)}

    assert (before, after, later) == (200, [200, 200], {200})
    assert provider.asked == asked


def test_a_provider_that_withdraws_all_keys_is_obeyed_and_so_is_the_next_key(
    provider: IdentityProvider, key: SigningKey
) -> None:
    with guarded(provider) as served:
        status(served, key)
        provider.keys = []
        status(served, SigningKey.new("key-9"))
        withdrawn, tokens = status(served, key), readiness(served)
        provider.keys = [key]
        after = status(served, key)

    assert (withdrawn, after) == (401, 200)
    assert tokens.startswith("no keys: the identity provider of AUTH_JWKS_URL serves a document without any")
    assert served.logged().count("jwks.withdrawn") == 1


def readiness(served: Served) -> str:
    answer = served.client.get("/health/ready")
    assert answer.status_code == 200
    return str(answer.json()["tokens"])


def test_the_log_says_what_happened_at_which_url_and_what_it_means(provider: IdentityProvider, key: SigningKey) -> None:
    url = provider.url.replace("http://", "http://holdfast:zzsecret@") + "?token=zzsecret"
    provider.status = 503
    with guarded(provider, AUTH_JWKS_URL=url) as served:
        status(served, key)
        without = lines(served, "jwks.unavailable")
        states = [readiness(served)]
        provider.status = 200
        status(served, key)
        again = lines(served, "jwks.available")
        states.append(readiness(served))
        provider.body = b'{"keys": [{"kty": "EC", "kid": "enc", "use": "enc"}]}'
        status(served, SigningKey.new("key-9"))
        wrong = lines(served, "jwks.unavailable")
        states.append(readiness(served))
        log = served.log.read_text()

    assert [(line["url"], line["error"], line["keys"]) for line in without] == [(provider.url, "it answers 503", 0)]
    assert "no token lets anybody in" in without[0]["advice"]
    assert [line["keys"] for line in again] == [1]
    assert "(kid 'enc'): its use is not sig" in wrong[0]["error"]
    assert "read before are let in" in wrong[0]["advice"]
    assert [state.partition(":")[0] for state in states] == ["no keys", "ok", "former keys"]
    assert "zzsecret" not in log


def lines(served: Served, event: str) -> list[dict[str, Any]]:
    """Return the lines of this event that were logged since the last call."""
    return [line for text in served.logged().splitlines() if (line := json.loads(text))["event"] == event]
