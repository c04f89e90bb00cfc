"""The same request twice over HTTP: one effect and one answer, whatever the request is."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx
import pytest
from sqlalchemy import Engine, func, select, text

from domain import reservations
from domain.idempotency import requests
from tests.support.builders import ROUTES, Db, a_hold, a_request, an_item, available
from tests.support.refusals import everything
from tests.support.waiting import wait_until_blocked

Body = dict[str, object]


@dataclass(frozen=True)
class Request:
    """A request that changes something, and the same request with another payload."""

    method: str
    path: str
    body: Body
    other: Body

    def send(self, api: httpx.Client, key: str | None = "k", **headers: str) -> httpx.Response:
        keyed = {} if key is None else {"Idempotency-Key": key}
        return api.request(self.method, self.path, json=self.body, headers=keyed | headers)


def creating(_: Db) -> Request:
    return Request("POST", "/items", {"sku": "ROOM-101", "name": "Room"}, {"sku": "ROOM-102", "name": "Room"})


def changing(db: Db) -> Request:
    return Request("PATCH", f"/items/by-id/{an_item(db).id}", {"adjust_quantity_by": 5}, {"adjust_quantity_by": 6})


def making(db: Db) -> Request:
    item = an_item(db)
    return Request("POST", "/reservations", {"item_id": item.id, "quantity": 2}, {"item_id": item.id, "quantity": 3})


def confirming(db: Db) -> Request:
    return Request("POST", f"/reservations/{a_hold(db, an_item(db)).id}/confirm", {"expected_version": 1}, {})


def cancelling(db: Db) -> Request:
    path = f"/reservations/{a_hold(db, an_item(db)).id}/cancel"
    return Request("POST", path, {"reason": "Plans changed"}, {"reason": "Too dear"})


def extending(db: Db) -> Request:
    path = f"/reservations/{a_hold(db, an_item(db)).id}/extend"
    return Request("POST", path, {"ttl_seconds": 3_600}, {"ttl_seconds": 7_200})


def noting(db: Db) -> Request:
    return Request("PATCH", f"/reservations/{a_hold(db, an_item(db)).id}", {"note": "Late"}, {"note": None})


every_change = pytest.mark.parametrize(
    "build_request", [creating, changing, making, confirming, cancelling, extending, noting]
)
BuildRequest = Callable[[Db], Request]


@every_change
def test_a_repeated_request_gets_the_first_answer_to_the_byte(
    api: httpx.Client, db: Db, build_request: BuildRequest
) -> None:
    request = build_request(db)
    first = request.send(api)
    after_first = everything(db)

    again = request.send(api)

    assert first.is_success and "Idempotency-Replayed" not in first.headers
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert _named(again) == _named(first)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert everything(db) == after_first


@pytest.mark.parametrize("build_request", [making, confirming])
def test_an_answer_stays_the_same_when_the_reservation_has_changed_since(
    api: httpx.Client, db: Db, build_request: BuildRequest
) -> None:
    request = build_request(db)
    first = request.send(api)
    api.post(f"/reservations/{first.json()['id']}/cancel").raise_for_status()

    again = request.send(api)

    assert (again.content, _named(again)) == (first.content, _named(first))
    assert api.get(f"/reservations/{first.json()['id']}").json()["status"] == "CANCELLED"


@every_change
def test_a_key_that_was_used_for_something_else_is_refused(
    api: httpx.Client, db: Db, build_request: BuildRequest
) -> None:
    request = build_request(db)
    request.send(api)
    after_first = everything(db)

    reused = replace(request, body=request.other).send(api)

    assert reused.status_code == 409
    assert {"type": "/problems/idempotency-key-reused", "key": "k"}.items() <= reused.json().items()
    assert everything(db) == after_first


@every_change
def test_requests_without_a_key_are_requests_of_their_own(
    api: httpx.Client, db: Db, build_request: BuildRequest
) -> None:
    request = build_request(db)
    request.send(api, key=None)

    again = request.send(api, key=None)

    assert "Idempotency-Replayed" not in again.headers
    with db.begin() as session:
        assert session.execute(select(func.count()).select_from(requests)).scalar_one() == 0


def test_quotes_around_a_key_are_not_part_of_it(api: httpx.Client, db: Db) -> None:
    request = making(db)
    first = request.send(api, key="k")

    again = request.send(api, key='"k"')

    assert again.content == first.content
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("key", ["k", "x" * 255, '"' + "x" * 255 + '"', "a key: with, punctuation; and=signs", "~"])
def test_a_key_is_any_printable_text_of_up_to_255_characters(api: httpx.Client, db: Db, key: str) -> None:
    request = making(db)

    assert request.send(api, key=key).status_code == 201
    assert request.send(api, key=key).headers["Idempotency-Replayed"] == "true"


def test_a_key_belongs_to_its_client(api: httpx.Client, db: Db) -> None:
    request = making(db)
    first = request.send(api, **{"X-Client-Id": "shop"})

    other = request.send(api, **{"X-Client-Id": "desk"})
    nameless = request.send(api)

    assert len({answer.json()["id"] for answer in (first, other, nameless)}) == 3


def test_a_key_belongs_to_its_operation(api: httpx.Client, db: Db) -> None:
    requests_of_all_kinds = [
        build_request(db) for build_request in (creating, changing, making, confirming, cancelling)
    ]

    answers = [request.send(api, key="k") for request in requests_of_all_kinds]

    assert [answer.status_code for answer in answers] == [201, 200, 201, 200, 200]
    assert not any("Idempotency-Replayed" in answer.headers for answer in answers)


def test_a_key_belongs_to_the_reservation_that_it_changed(api: httpx.Client, db: Db) -> None:
    item = an_item(db)
    one, other = a_hold(db, item), a_hold(db, item)
    api.post(f"/reservations/{one.id}/confirm", headers={"Idempotency-Key": "k"})

    reused = api.post(f"/reservations/{other.id}/confirm", headers={"Idempotency-Key": "k"})

    assert (reused.status_code, reused.json()["title"]) == (409, "Idempotency key reused")


def test_the_order_of_fields_and_white_space_make_no_difference(api: httpx.Client, db: Db) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    item = an_item(db)
    written = f'{{"item_id":{item.id},"quantity":2,"metadata":{{"a":1,"b":{{"c":2,"d":3}}}}}}'
    otherwise = f'{{ "metadata": {{"b": {{"d": 3, "c": 2}}, "a": 1}},\n "quantity": 2, "item_id": {item.id} }}'

    first = api.post("/reservations", content=written, headers=headers)
    again = api.post("/reservations", content=otherwise, headers=headers)

    assert (first.status_code, again.content) == (201, first.content)


def test_a_refusal_is_not_kept_so_the_same_key_may_try_again(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=1)
    request = Request("POST", "/reservations", {"item_id": item.id, "quantity": 2}, {})
    refused = request.send(api)

    api.patch(f"/items/by-id/{item.id}", json={"adjust_quantity_by": 1})
    accepted = request.send(api)

    assert (refused.status_code, accepted.status_code) == (409, 201)
    assert "Idempotency-Replayed" not in accepted.headers


@pytest.mark.parametrize(
    "refused",
    [
        Request("POST", "/items", {"sku": "TAKEN", "name": "Room"}, {}),
        Request("PATCH", "/items/by-id/1", {"adjust_quantity_by": -100}, {}),
        Request("PATCH", "/items/by-id/7", {"adjust_quantity_by": 1}, {}),
        Request("POST", "/reservations", {"item_id": 1, "quantity": 100}, {}),
        Request("POST", "/reservations", {"item_id": 7, "quantity": 1}, {}),
        Request("POST", "/reservations/{hold}/confirm", {"expected_version": 7}, {}),
        Request("POST", "/reservations/{gone}/confirm", {}, {}),
        Request("POST", "/reservations/{gone}/check-in", {}, {}),
    ],
    ids=lambda request: f"{request.method} {request.path} {request.body}",
)
def test_nothing_is_kept_of_a_refusal(api: httpx.Client, db: Db, refused: Request) -> None:
    item = an_item(db, sku="TAKEN")
    hold, gone = a_hold(db, item), a_hold(db, item)
    api.post(f"/reservations/{gone.id}/cancel")
    before = everything(db)

    answer = replace(refused, path=refused.path.format(hold=hold.id, gone=gone.id)).send(api)

    assert answer.status_code in (404, 409)
    assert everything(db) == before


@every_change
def test_duplicates_at_once_act_once_and_share_the_answer(
    api: httpx.Client, db: Db, engine: Engine, build_request: BuildRequest
) -> None:
    request = build_request(db)

    with ThreadPoolExecutor(2) as threads:
        with _writing_blocked(engine):
            duplicates = [threads.submit(request.send, api) for _ in range(2)]
            # Of duplicates that make a reservation, the second waits in the queue, where PostgreSQL does not see it.
            wait_until_blocked(db, 1 if build_request is making else 2)
        first, second = (duplicate.result() for duplicate in duplicates)

    assert first.is_success
    assert (first.status_code, first.content, _named(first)) == (second.status_code, second.content, _named(second))
    assert sorted("Idempotency-Replayed" in answer.headers for answer in (first, second)) == [False, True]


def test_a_duplicate_of_a_refused_request_is_decided_by_itself(api: httpx.Client, db: Db, engine: Engine) -> None:
    an_item(db, sku="ROOM-101")
    request = creating(db)

    with ThreadPoolExecutor(2) as threads:
        with _writing_blocked(engine):
            duplicates = [threads.submit(request.send, api) for _ in range(2)]
            wait_until_blocked(db, 2)
        answers = [duplicate.result() for duplicate in duplicates]

    assert [answer.json()["title"] for answer in answers] == ["Sku taken"] * 2


def test_a_key_that_races_with_another_process_on_another_item_is_refused(api: httpx.Client, db: Db) -> None:
    item, other = an_item(db), an_item(db)
    request = Request("POST", "/reservations", {"item_id": item.id, "quantity": 1}, {})

    with ThreadPoolExecutor(1) as threads, db() as racing:
        reservations.reserve(racing, [a_request(other, key="k")], ROUTES)
        late = threads.submit(request.send, api, **{"X-Client-Id": "client"})
        wait_until_blocked(db)
        racing.commit()

    assert (late.result().status_code, late.result().json()["title"]) == (409, "Idempotency key reused")
    assert available(db, item) == 10


def _named(answer: httpx.Response) -> tuple[str | None, str | None]:
    return answer.headers.get("Location"), answer.headers.get("ETag")


@contextmanager
def _writing_blocked(engine: Engine) -> Iterator[None]:
    """Make every transaction that writes an item or a reservation wait until the block ends. Reading is not blocked."""
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE items, reservations IN SHARE MODE"))
        yield
