"""What browsers are allowed to do with the API, and what answers tell about the server."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from domain.runtime.settings import Settings
from tests.support.api_process import Served, serving

ORIGIN = "https://shop.example"

#: Answers of handlers, of the hot path, of the framework, of the viewer, and of what refuses before all of them.
PATHS = [
    "/items",
    "/items/nothing",
    "/nowhere",
    "/schema",
    "/schema/openapi.json",
    "/problems",
    "/metrics",
    "/health/live",
]
PATHS += ["/schema/viewer/style.css", "/schema/viewer/nothing"]
PATHS += ["/reservations?limit=x", f"/items?{'x' * 5_000}=1"]

#: What is the same for everybody, and for how many seconds a client may keep it.
KEPT = {"/schema": 3_600, "/schema/openapi.json": 300, "/schema/viewer/style.css": 3_600}

PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture(scope="module")
def open_to_the_shop(settings: Settings) -> Iterator[Served]:
    """An API that wants tokens, and that pages of the shop may call."""
    with serving(AUTH="token", CORS_ORIGINS=ORIGIN) as served:
        yield served


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:24])
def test_every_answer_has_the_security_headers_once(api: httpx.Client, path: str) -> None:
    headers = api.get(path).headers

    assert headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert headers.get_list("Referrer-Policy") == ["no-referrer"]
    assert [policy.startswith("default-src 'none';") for policy in headers.get_list("Content-Security-Policy")] == [
        True
    ]
    kept = f"public, max-age={KEPT[path]}" if path in KEPT else "no-store"
    assert headers.get_list("Cache-Control") == [kept]
    assert "Strict-Transport-Security" not in headers


def test_a_reservation_is_answered_with_them_too(api: httpx.Client) -> None:
    api.post("/items", json={"sku": "A", "name": "A", "available_quantity": 1})

    answer = api.post("/reservations", json={"sku": "A", "quantity": 1})

    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:24])
def test_no_answer_names_the_server_or_a_version(api: httpx.Client, path: str) -> None:
    headers = api.get(path).headers

    assert headers.get("Server", "") == ""
    assert not {"X-Powered-By", "Via"} & set(headers)


def test_what_is_no_http_is_not_answered_with_a_name(api: httpx.Client) -> None:
    with socket.create_connection((api.base_url.host, api.base_url.port or 80), timeout=4) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        answer = connection.recv(4_096).lower()

    assert b"granian" not in answer and b"hyper" not in answer


def test_too_many_small_headers_are_refused(api: httpx.Client) -> None:
    head = "GET /items HTTP/1.1\r\nHost: x\r\n" + "a: b\r\n" * 1_000 + "\r\n"
    with socket.create_connection((api.base_url.host, api.base_url.port or 80), timeout=4) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(4_096)

    assert answer.startswith(b"HTTP/1.1 431")
    assert api.get("/items").status_code == 200


def test_pages_of_other_origins_get_nothing_unless_it_is_set(api: httpx.Client) -> None:
    for answer in (
        api.get("/items", headers={"Origin": ORIGIN}),
        api.options("/items", headers={"Origin": ORIGIN} | PREFLIGHT),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_browser_is_told_without_credentials_what_a_page_may_send(open_to_the_shop: Served) -> None:
    answer = open_to_the_shop.client.options("/reservations", headers={"Origin": ORIGIN} | PREFLIGHT)

    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_page_may_read_answers_and_refusals(open_to_the_shop: Served) -> None:
    answer = open_to_the_shop.client.get("/items", headers={"Origin": ORIGIN})

    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("origin", ["https://shop.example.evil.example", "http://shop.example", "null", "https://SHOP"])
def test_a_page_of_an_origin_that_is_not_set_gets_nothing(open_to_the_shop: Served, origin: str) -> None:
    for answer in (
        open_to_the_shop.client.get("/items", headers={"Origin": origin}),
        open_to_the_shop.client.options("/items", headers={"Origin": origin} | PREFLIGHT),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["Vary"] == "Origin"
