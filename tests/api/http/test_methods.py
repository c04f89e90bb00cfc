"""HEAD, OPTIONS and methods that a resource does not have, as RFC 9110 describes them."""

import socket

import httpx
import pytest

from api.app import ROUTES
from tests.support.builders import Db, a_hold, an_item

#: The paths of resources that can be read, and the methods of each.
READABLE = {
    "/items": {"GET", "HEAD", "OPTIONS", "POST"},
    "/items/ROOM-101": {"GET", "HEAD", "OPTIONS", "PATCH"},
    "/items/by-id/1": {"GET", "HEAD", "OPTIONS", "PATCH"},
    "/reservations": {"GET", "HEAD", "OPTIONS", "POST"},
    "/reservations/{hold}": {"GET", "HEAD", "OPTIONS", "PATCH", "PUT"},
    "/outbox/destinations": {"GET", "HEAD", "OPTIONS"},
    "/health/live": {"GET", "HEAD", "OPTIONS"},
    "/health/ready": {"GET", "HEAD", "OPTIONS"},
}
CHANGING = {
    "/reservations/{hold}/confirm": {"OPTIONS", "POST"},
    "/outbox/replay": {"OPTIONS", "POST"},
}


@pytest.fixture
def hold(db: Db) -> str:
    return str(a_hold(db, an_item(db, sku="ROOM-101")).id)


def allowed(answer: httpx.Response) -> set[str]:
    return set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize("path", [*READABLE, "/items/NONE", "/items?limit=0", "/nowhere", "/items?x=1"])
def test_head_answers_as_get_does_without_the_content(api: httpx.Client, hold: str, path: str) -> None:
    got, head = (api.request(method, path.format(hold=hold)) for method in ("GET", "HEAD"))

    varying = {"date", "x-request-id"}
    assert head.status_code == got.status_code
    assert head.headers.keys() == got.headers.keys()
    assert {name: head.headers[name] for name in head.headers.keys() - varying - {"content-length"}} == {
        name: got.headers[name] for name in got.headers.keys() - varying - {"content-length"}
    }
    assert int(head.headers["Content-Length"]) == len(got.content) > 0
    assert head.content == b""


def test_nothing_of_the_content_is_sent_after_the_answer_to_head(api: httpx.Client) -> None:
    """A client would take it for the beginning of the next answer."""
    with socket.create_connection((api.base_url.host, api.base_url.port or 80)) as connection:
        for last in (b"", b"Connection: close\r\n"):
            connection.sendall(b"HEAD /items HTTP/1.1\r\nHost: a\r\n" + last + b"\r\n")
        received = b""
        while part := connection.recv(65_536):
            received += part

    assert received.count(b"HTTP/1.1 200") == 2
    assert received.count(b"\r\n\r\n") == 2 and received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(("path", "methods"), [*READABLE.items(), *CHANGING.items()])
def test_options_lists_the_methods_of_a_resource(api: httpx.Client, hold: str, path: str, methods: set[str]) -> None:
    answer = api.options(path.format(hold=hold))

    assert (answer.status_code, answer.content) == (204, b"")
    assert allowed(answer) == methods


def test_options_of_the_server_lists_all_methods(api: httpx.Client) -> None:
    with socket.create_connection((api.base_url.host, api.base_url.port or 80)) as connection:
        connection.sendall(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = connection.recv(65_536).decode().lower()

    assert received.startswith("http/1.1 204")
    methods = {"HEAD", "OPTIONS"}.union(*(handler.http_methods for handler in ROUTES))
    assert f"allow: {', '.join(sorted(methods)).lower()}\r\n" in received
    assert "x-request-id: " in received


def test_options_of_an_unknown_resource_is_not_found(api: httpx.Client) -> None:
    assert api.options("/nowhere").json()["type"] == "/problems/no-such-resource"


@pytest.mark.parametrize(("path", "methods"), [*READABLE.items(), *CHANGING.items()])
@pytest.mark.parametrize("method", ["COPY", "DELETE", "PROPFIND", "TRACE"])
def test_a_method_that_a_resource_does_not_have_is_refused_with_those_that_it_has(
    api: httpx.Client, hold: str, path: str, methods: set[str], method: str
) -> None:
    answer = api.request(method, path.format(hold=hold))

    assert (answer.status_code, answer.json()["type"]) == (405, "/problems/method-not-allowed")
    assert allowed(answer) == methods


@pytest.mark.parametrize("path", CHANGING)
def test_head_is_refused_where_there_is_nothing_to_get(api: httpx.Client, hold: str, path: str) -> None:
    answer = api.head(path.format(hold=hold))

    assert (answer.status_code, answer.content) == (405, b"")
    assert allowed(answer) == CHANGING[path]
