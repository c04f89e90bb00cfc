"""Identity providers that are down at first, lie, redirect, compress or never end; and senders that try anything."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from api.auth.keys import read_jwks
from domain.runtime.settings import Settings
from tests.api.auth.identity import (
    AUDIENCE,
    ISSUER,
    IdentityProvider,
    SigningKey,
    an_identity_provider,
    unchecked,
)
from tests.support.api_process import Served, serving
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

#: How a JWKS endpoint answers a request.
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.new()


@contextmanager
def answering(answer: Answer, port: int = 0) -> Iterator[str]:
    """Serve a JWKS endpoint that answers in some way, until the block ends. Yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # The client hangs up on what never ends.
            with suppress(ConnectionError):
                answer(self)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/jwks.json"
        finally:
            server.shutdown()


def last(answers: Sequence[Answer]) -> Answer:
    """Return the answer that is the last one at the time of each request."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        answers[-1](handler)

    return answer


def document(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [key.jwk() for key in keys]}).encode()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def guarded(url: str) -> AbstractContextManager[Served]:
    return serving(AUTH="token", AUTH_JWKS_URL=url, AUTH_ISSUER=ISSUER, AUTH_AUDIENCE=AUDIENCE)


def status(served: Served, token: str) -> int:
    return served.client.get("/items", headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_provider_that_is_down_when_the_api_starts_lets_in_as_soon_as_it_is_up(
    settings: Settings, key: SigningKey
) -> None:
    port = free_port()
    with guarded(f"http://127.0.0.1:{port}/jwks.json") as served:
        before = status(served, key.token("staff"))
        with answering(lambda handler: send(handler, document(key)), port):
            wait_until("the token is known", lambda: status(served, key.token("staff")) == 200)
        after = status(served, key.token("staff", sub="ben"))

    assert (before, after) == (503, 200)
    assert served.faults() == []


def endless_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65_536)


def endless_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"X-More: " + b"a" * 1_000 + b"\r\n")


def dripping(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x15\x03\x01\x00\x02\x02\x46" * 100)


TROUBLES: dict[str, Answer] = {
    "an endless document": endless_body,
    "endless headers": endless_headers,
    "a document that drips": dripping,
    "no HTTP": no_http,
    "a bomb": lambda handler: send(handler, gzip.compress(b" " * 100_000_000), Content_Encoding="gzip"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_the_provider_sends_the_keys_that_were_read_before_serve(
    settings: Settings, key: SigningKey, trouble: str
) -> None:
    answers: list[Answer] = [lambda handler: send(handler, document(key))]
    with answering(last(answers)) as url, guarded(url) as served:
        wait_until("the token is known", lambda: status(served, key.token("staff")) == 200)
        answers.append(TROUBLES[trouble])

        unknown = status(served, SigningKey.new("key-9").token("admin"))
        began = time.monotonic()
        after = status(served, key.token("staff", sub="ben"))

    assert (unknown, after) == (503, 200)
    assert time.monotonic() - began < 30
    assert served.faults() == []


def test_a_provider_that_redirects_is_not_followed_to_the_keys_of_somebody_else(
    settings: Settings, key: SigningKey
) -> None:
    stranger = SigningKey.new("key-9")
    with an_identity_provider(stranger) as elsewhere:
        answers: list[Answer] = [lambda handler: send(handler, document(key))]
        with answering(last(answers)) as url, guarded(url) as served:
            wait_until("the token is known", lambda: status(served, key.token("staff")) == 200)
            answers.append(lambda handler: send(handler, b"", 302, Location=elsewhere.url))

            statuses = status(served, stranger.token("admin")), status(served, key.token("staff"))

        assert (statuses, elsewhere.asked) == ((503, 200), 0)


def test_a_provider_may_compress_its_keys_for_who_asks_for_that(settings: Settings, key: SigningKey) -> None:
    def compressing(handler: BaseHTTPRequestHandler) -> None:
        if "gzip" in (handler.headers.get("Accept-Encoding") or ""):
            send(handler, gzip.compress(document(key)), Content_Encoding="gzip")
        else:
            send(handler, document(key))

    with answering(compressing) as url, guarded(url) as served:
        assert status(served, key.token("staff")) == 200


def test_a_key_that_is_replaced_under_its_id_serves_no_longer_once_the_keys_are_read_again(
    settings: Settings, key: SigningKey
) -> None:
    replaced = SigningKey.new(key.kid)
    with an_identity_provider(key) as provider, guarded(provider.url) as served:
        wait_until("the token is known", lambda: status(served, key.token("staff")) == 200)
        provider.keys = [replaced]
        status(served, SigningKey.new("key-9").token("staff"))

        assert status(served, key.token("staff")) == 401
        assert status(served, replaced.token("staff")) == 200


#: Entries of a document that can't be used, beside one that can.
ODD_ENTRIES: dict[str, Any] = {
    "an id that is a list": {"kty": "EC", "kid": ["key-1"]},
    "no object": "key",
    "an unusable key of the same id": {"kty": "EC", "kid": "key-1", "crv": "P-256", "x": "AA", "y": "AA"},
    "a shared secret of the same id": {"kty": "oct", "kid": "key-1", "k": "c2VjcmV0", "alg": "HS256"},
    "an unknown type": {"kty": "LATTICE", "kid": "key-1", "alg": "ML-DSA-44"},
}


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("odd", ODD_ENTRIES)
def test_an_entry_that_can_not_be_used_hides_no_other(key: SigningKey, odd: str, first: bool) -> None:
    entries = [ODD_ENTRIES[odd], key.jwk()] if first else [key.jwk(), ODD_ENTRIES[odd]]

    keys = read_jwks(json.dumps({"keys": entries}).encode())

    assert [usable.kid for usable in keys.keys] == [key.kid]


@pytest.fixture
def provider(key: SigningKey) -> Iterator[IdentityProvider]:
    with an_identity_provider(key) as provider:
        yield provider


def raw(served: Served, *headers: bytes) -> int:
    """Send a request with exactly these headers, and return the status of the answer, 0 if it was hung up on."""
    lines = [b"GET /items HTTP/1.1", b"Host: x", b"Connection: close", *headers, b"", b""]
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        with suppress(ConnectionError):
            connection.sendall(b"\r\n".join(lines))
        try:
            answer = connection.recv(65_536)
        except ConnectionError:
            answer = b""
    return int(answer.split()[1]) if answer else 0


def test_a_sender_that_tries_anything_is_refused_and_harms_nobody(
    settings: Settings, provider: IdentityProvider, key: SigningKey
) -> None:
    good = key.token("staff").encode()
    with guarded(provider.url) as served:
        wait_until("the token is known", lambda: status(served, good.decode()) == 200)
        tried = {
            "a token of 100 kB": raw(served, b"Authorization: Bearer " + b"a" * 100_000),
            "ten headers": raw(served, *[b"Authorization: Bearer " + good] * 10),
            "a key with a NUL": raw(served, b"Authorization: Bearer hf_a\0b_c"),
            "a token with a NUL": raw(served, b"Authorization: Bearer " + good + b"\0"),
            "a token in two lines": raw(served, b"Authorization: Bearer " + good[:20] + b"\r\n " + good[20:]),
        }
        after = status(served, good.decode())

    assert {name: code for name, code in tried.items() if code not in {0, 400, 401, 431}} == {}
    assert after == 200
    assert served.faults() == []


WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "venues": {"venues": {"PARIS": True}},
    "one venue": {"venues": 17},
    "providers": {"provider_id": [["x"]]},
    "a role": {"roles": ["admin", 17]},
    "many roles": {"roles": ["staff"] * 101},
    "an audience": {"aud": {"holdfast": True}},
    "an issuer": {"iss": [ISSUER]},
    "a time": {"nbf": "now"},
    "another time": {"iat": {}},
    "no number": {"exp": float("nan")},
    "no end": {"exp": float("inf")},
    "true": {"exp": True},
    "an empty subject": {"sub": ""},
}


def test_a_claim_of_the_wrong_type_is_refused(settings: Settings, provider: IdentityProvider, key: SigningKey) -> None:
    with guarded(provider.url) as served:
        statuses = {name: status(served, unchecked(key, **claims)) for name, claims in WRONG_CLAIMS.items()}

    assert {name: code for name, code in statuses.items() if code != 401} == {}
    assert served.faults() == []


def test_roles_that_are_unknown_are_ignored_and_each_is_logged_once(
    settings: Settings, provider: IdentityProvider, key: SigningKey
) -> None:
    with guarded(provider.url) as served:
        statuses = [status(served, key.token("staff", "emperor", sub=f"ann-{number}")) for number in range(3)]
        logged = served.log.read_text().count("emperor")

    assert (statuses, logged) == ([200, 200, 200], 1)
