"""Request ids: one is in the response, the log lines, the problem and the events of its request."""

import json
import re

import httpx
import pytest
from sqlalchemy import select

from domain.outbox.table import outbox
from tests.support.api_process import Served
from tests.support.broken_tables import failing
from tests.support.builders import Db, a_hold, an_item

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def correlation_ids(db: Db) -> set[str]:
    with db.begin() as session:
        return {headers.get("correlation_id") for headers in session.execute(select(outbox.c.headers)).scalars()}


@pytest.mark.parametrize("sent", ["r-1", "x" * 128, "a/b:c=d+e_f.g-h", "0"])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/items", 200),
        ("GET", "/items/NONE", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/items?limit=0", 400),
        ("GET", "/items/%FF", 400),
        ("GET", "/items?" + "x" * 5_000, 414),
        ("DELETE", "/items", 405),
        ("POST", "/items", 415),
        ("OPTIONS", "/items", 204),
        ("HEAD", "/items", 200),
        ("GET", "/health/live", 200),
        ("GET", "/metrics", 200),
        ("GET", "/schema", 200),
        ("GET", "/schema/openapi.json", 200),
    ],
)
def test_the_id_that_a_client_sends_is_in_every_response(
    api: httpx.Client, method: str, path: str, status: int, sent: str
) -> None:
    content = b"x" if method == "POST" else None

    answer = api.request(method, path, headers={"X-Request-Id": sent}, content=content)

    assert answer.status_code == status
    assert answer.headers.get_list("X-Request-Id") == [sent]
    if status >= 400:
        assert answer.json()["request_id"] == sent


@pytest.mark.parametrize("sent", [None, b"", b"x" * 129, b"a b", b"cl\xe9", b"a\tb", "é".encode(), b"ann@example.com"])
def test_a_request_without_a_usable_id_gets_one(api: httpx.Client, sent: bytes | None) -> None:
    headers = {} if sent is None else {b"X-Request-Id": sent}

    answers = [api.get("/items/NONE", headers=headers) for _ in range(2)]

    made = [answer.headers["X-Request-Id"] for answer in answers]
    assert all(UUID.fullmatch(one) for one in made)
    assert made[0] != made[1]
    assert [answer.json()["request_id"] for answer in answers] == made


def test_an_id_that_is_sent_twice_appears_once(api: httpx.Client) -> None:
    answer = api.get("/items", headers=[("X-Request-Id", "a"), ("X-Request-Id", "b")])

    assert len(answer.headers.get_list("X-Request-Id")) == 1


@pytest.mark.parametrize("sent", [None, "r-1"])
def test_every_event_that_follows_from_a_request_has_its_id(api: httpx.Client, db: Db, sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-Id": sent}

    made = api.post("/reservations", json={"item_id": an_item(db).id, "quantity": 1}, headers=headers)

    assert correlation_ids(db) == {made.headers["X-Request-Id"]}
    confirmed = api.post(f"{made.headers['Location']}/confirm", headers=headers)
    assert correlation_ids(db) == {made.headers["X-Request-Id"], confirmed.headers["X-Request-Id"]}


@pytest.mark.parametrize("path", ["/reservations", "/reservations/{hold}/confirm"])
def test_every_line_that_is_logged_for_a_request_has_its_id(
    api: httpx.Client, db: Db, served: Served, path: str
) -> None:
    item = an_item(db)
    hold = a_hold(db, item)
    with failing(db, "reservation_history"):
        answer = api.post(
            path.format(hold=hold.id),
            json={"item_id": item.id, "quantity": 1} if path == "/reservations" else {},
            headers={"X-Request-Id": "r-1"},
        )

    assert (answer.status_code, answer.json()["request_id"], answer.headers["X-Request-Id"]) == (500, "r-1", "r-1")
    failed = [json.loads(line) for line in served.logged().splitlines() if "request.failed" in line]
    assert [line["request_id"] for line in failed] == ["r-1"]


def test_requests_on_one_connection_have_ids_of_their_own(api: httpx.Client) -> None:
    answers = [api.get("/items/NONE", headers={"X-Request-Id": sent} if sent else {}) for sent in ("a", None, "b")]

    assert answers[0].json()["request_id"] == "a" and answers[2].json()["request_id"] == "b"
    assert UUID.fullmatch(answers[1].json()["request_id"])
