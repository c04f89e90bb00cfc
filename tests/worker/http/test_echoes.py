"""A receiver that repeats the request shows its operators nothing of ours: no password of its URL is in an error."""

import html
import json
from base64 import b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from urllib.parse import quote

import pytest

from domain.outbox import Outcome
from domain.outbox.delivery.outcomes import error_of
from tests.support.http_server import Server, saying
from worker.http.client import EXCERPT_LENGTH, Http

PASSWORD = 'p/ss+w"rd&<ü>'
IN_URL = "p%2Fss%2Bw%22rd&%3C%C3%BC%3E"
BASE64 = b64encode(f"shop:{PASSWORD}".encode()).decode()

#: How servers write the header `Authorization`, or what is in it.
ECHOES: dict[str, Callable[[str], str]] = {
    "as it is": lambda header: f"Authorization: {header}",
    "a mapping": lambda header: repr({"Host": "x", "Authorization": header}),
    "JSON": lambda header: json.dumps({"headers": {"authorization": [header]}}),
    "JSON of PHP": lambda header: json.dumps({"HTTP_AUTHORIZATION": header}).replace("/", "\\/"),
    "without its scheme": lambda header: f"credentials={header.split()[1]}",
    "in a URL": lambda header: f"?credentials={quote(header.split()[1], safe='')}",
    "HTML of Jinja": lambda _: html.escape(PASSWORD, quote=False).replace('"', "&#34;"),
    "HTML": lambda header: f"<td>{html.escape(header)}</td>",
    "the password": lambda _: f"$_SERVER[PHP_AUTH_PW] = {PASSWORD}",
    "the password in JSON": lambda _: json.dumps({"password": PASSWORD}),
    "the password in HTML": lambda _: html.escape(PASSWORD),
    "the URL": lambda _: f"http://shop:{IN_URL}@127.0.0.1/hook failed",
}


def posted(server: Server, userinfo: str) -> Outcome:
    http = Http(server.url.replace("://", f"://{userinfo}@"), timeout_seconds=5, connections=1)
    outcome = http.post("{}", {})
    http.close()
    return outcome


def echo(server: Server, status: int, write: Callable[[str], str]) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        saying(status, write(handler.headers["Authorization"]).encode())(handler)

    server.answer = answer


@pytest.mark.parametrize("status", [400, 401, 410, 500, 503])
@pytest.mark.parametrize("write", ECHOES.values(), ids=ECHOES)
def test_an_error_has_no_password_of_the_url(server: Server, status: int, write: Callable[[str], str]) -> None:
    echo(server, status, write)

    error = error_of(posted(server, f"shop:{IN_URL}"))

    assert server.requests[0].headers["authorization"] == f"Basic {BASE64}"
    assert error.startswith(f"{status} ") and "[redacted]" in error
    unpadded = BASE64.rstrip("=")
    for secret in (unpadded, unpadded.replace("/", "\\/"), "p/ss", 'w"rd', IN_URL, json.dumps(PASSWORD)[1:-1]):
        assert secret not in error


@pytest.mark.parametrize("before", range(EXCERPT_LENGTH - 40, EXCERPT_LENGTH + 1, 5))
def test_a_password_where_the_answer_is_cut_is_not_in_the_error(server: Server, before: int) -> None:
    echo(server, 500, lambda header: f"{'.' * before}{header} http://a:hunter2hunter2@b/")

    error = error_of(posted(server, "shop:hunter2hunter2"))

    assert "hunter" not in error and b64encode(b"shop:hunter")[:12].decode() not in error


def test_a_key_in_place_of_a_user_name_is_not_in_the_error(server: Server) -> None:
    echo(server, 500, lambda header: f"sk_live_4711 {header}")

    assert error_of(posted(server, "sk_live_4711:")) == "500 Internal Server Error: [redacted] Basic [redacted]"


def test_what_a_receiver_answers_otherwise_is_in_the_error(server: Server) -> None:
    server.answer = saying(500, b"The table is full; see http://shop.example/status")

    error = error_of(posted(server, f"shop:{IN_URL}"))

    assert error == "500 Internal Server Error: The table is full; see http://shop.example/status"
