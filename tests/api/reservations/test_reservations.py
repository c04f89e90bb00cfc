"""Reservations over HTTP: making, finding, confirming and cancelling them."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis import Redis
from sqlalchemy import select

from deploy.embedded import RedisServer
from domain import reservations
from domain.outbox.table import outbox
from tests.support.builders import ROUTES, Db, a_hold, a_request, an_item, an_overdue_hold, available, reserve
from tests.support.refusals import everything
from tests.support.waiting import wait_until


def test_a_hold_is_made_and_read_where_its_location_says(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=10)
    wanted = {"quantity": 2, "guest": {"id": "guest-42"}, "note": "Late", "metadata": {"cart": ["c-7", 1.5, None]}}

    made = api.post("/reservations", json=wanted | {"item_id": item.id})

    assert made.status_code == 201
    expected = {"item_id": item.id, "sku": item.sku, "status": "PENDING", "version": 1, "source": "api"}
    assert (wanted | expected).items() <= made.json().items()
    assert made.headers["Location"] == f"/reservations/{made.json()['id']}"
    assert made.headers["ETag"] == '"1"'
    assert available(db, item) == 8
    read = api.get(made.headers["Location"])
    assert (read.status_code, read.json(), read.headers["ETag"]) == (200, made.json(), '"1"')


@pytest.mark.parametrize("sku", ["ROOM-101", "4006381333931"])
def test_an_item_can_be_named_by_its_sku(api: httpx.Client, db: Db, sku: str) -> None:
    item = an_item(db, quantity=2, sku=sku)

    made = api.post("/reservations", json={"sku": sku, "quantity": 2})

    assert (made.status_code, made.json()["item_id"]) == (201, item.id)
    assert available(db, item) == 0


@pytest.mark.parametrize(("body", "lasts"), [({}, 900), ({"ttl_seconds": 1}, 1), ({"ttl_seconds": 604_800}, 604_800)])
def test_a_hold_lasts_a_quarter_of_an_hour_or_as_long_as_requested(
    api: httpx.Client, db: Db, body: dict[str, int], lasts: int
) -> None:
    item = an_item(db)

    made = api.post("/reservations", json={"item_id": item.id, "quantity": 1} | body).json()

    assert _instant(made["expires_at"]) - _instant(made["created_at"]) == timedelta(seconds=lasts)
    assert made["created_at"].endswith("Z")


def test_no_more_is_held_than_is_available(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=3)

    refused = api.post("/reservations", json={"item_id": item.id, "quantity": 4})

    assert refused.status_code == 409
    facts = {"type": "/problems/sold-out", "sku": item.sku, "asked": 4, "available_quantity": 3}
    assert facts.items() <= refused.json().items()
    assert refused.json()["detail"].startswith(f"Requested 4 of {item.sku}; 3 available. Nothing was reserved.")
    assert available(db, item) == 3


def test_events_carry_the_trace_of_their_request(api: httpx.Client, db: Db) -> None:
    item = an_item(db)
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Request-Id": "r-1"}

    api.post("/reservations", json={"item_id": item.id, "quantity": 1}, headers=trace)

    with db.begin() as session:
        (headers,) = session.execute(select(outbox.c.headers).where(outbox.c.destination == "log")).scalars()
    assert headers == {"traceparent": trace["traceparent"], "correlation_id": "r-1"}


@pytest.mark.parametrize(("method", "operation"), [("GET", ""), ("POST", "/confirm"), ("POST", "/cancel")])
def test_an_unknown_reservation_is_not_found(api: httpx.Client, method: str, operation: str) -> None:
    unknown = str(uuid4())

    answer = api.request(method, f"/reservations/{unknown}{operation}")

    assert answer.status_code == 404
    facts = {"type": "/problems/unknown-reservation", "reservation_id": unknown, "field": "reservation_id"}
    assert facts.items() <= answer.json().items()


def test_reservations_are_listed_page_by_page_the_newest_first(api: httpx.Client, db: Db) -> None:
    item = an_item(db)
    made = [str(a_hold(db, item).id) for _ in range(5)]

    first = api.get("/reservations", params={"limit": 3}).json()
    second = api.get("/reservations", params={"limit": 3, "cursor": first["next_cursor"]}).json()

    assert _ids(first) == made[:1:-1]
    assert _ids(second) == made[1::-1]
    assert second["next_cursor"] is None


def test_a_list_is_filtered_as_requested(api: httpx.Client, db: Db) -> None:
    item, other = an_item(db, sku="4006381333931"), an_item(db)
    others = [a_hold(db, other), a_hold(db, other)]
    (_,) = reserve(db, a_request(item, guest_id="guest-42", source="import"))
    (ours,) = api.get("/reservations", params={"item_id": item.id}).json()["reservations"]
    api.post(f"/reservations/{ours['id']}/confirm")

    for narrowing in (
        {"status": "CONFIRMED"},
        {"item_id": item.id},
        {"sku": item.sku},
        {"guest_id": "guest-42"},
        {"source": "import"},
        {"from": ours["created_at"]},
        {"from": ours["created_at"].replace("Z", "+00:00"), "status": "CONFIRMED", "sku": item.sku},
    ):
        assert _ids(api.get("/reservations", params=narrowing).json()) == [ours["id"]], narrowing
    for narrowing in ({"to": ours["created_at"]}, {"status": "PENDING"}, {"source": "api"}, {"item_id": other.id}):
        found = _ids(api.get("/reservations", params=narrowing).json())
        assert found == [str(one.id) for one in reversed(others)], narrowing
    assert _ids(api.get("/reservations", params={"status": "EXPIRED"}).json()) == []


@pytest.mark.parametrize("body", [b"", b"{}", b'{"expected_version": 1}'])
def test_a_hold_is_confirmed(api: httpx.Client, db: Db, body: bytes) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)

    confirmed = _post(api, f"/reservations/{hold.id}/confirm", body)

    assert confirmed.status_code == 200
    assert {"status": "CONFIRMED", "version": 2, "quantity": 2}.items() <= confirmed.json().items()
    assert confirmed.json()["confirmed_at"] == confirmed.json()["updated_at"] > confirmed.json()["created_at"]
    assert confirmed.headers["ETag"] == '"2"'
    assert api.get(f"/reservations/{hold.id}").json() == confirmed.json()
    assert available(db, item) == 3


@pytest.mark.parametrize("confirmed_before", [False, True])
def test_a_cancelled_reservation_gives_its_stock_back_and_says_why(
    api: httpx.Client, db: Db, confirmed_before: bool
) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)
    if confirmed_before:
        api.post(f"/reservations/{hold.id}/confirm")

    cancelled = api.post(f"/reservations/{hold.id}/cancel", json={"reason": "The guest's plans changed"})

    assert cancelled.status_code == 200
    facts = {"status": "CANCELLED", "cancellation_reason": "The guest's plans changed"}
    assert facts.items() <= cancelled.json().items()
    assert cancelled.headers["ETag"] == f'"{cancelled.json()["version"]}"'
    assert available(db, item) == 5


def test_no_reason_is_needed_to_cancel(api: httpx.Client, db: Db) -> None:
    hold = a_hold(db, an_item(db))

    cancelled = api.post(f"/reservations/{hold.id}/cancel")

    assert (cancelled.status_code, cancelled.json()["cancellation_reason"]) == (200, None)


@pytest.mark.parametrize("operation", ["confirm", "check-in", "complete", "no-show", "reject"])
def test_what_is_cancelled_stays_cancelled(api: httpx.Client, db: Db, operation: str) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)
    api.post(f"/reservations/{hold.id}/cancel")

    refused = api.post(f"/reservations/{hold.id}/{operation}")

    assert refused.status_code == 409
    facts = {"type": "/problems/wrong-status", "status": 409, "current_status": "CANCELLED"}
    assert facts.items() <= refused.json().items()
    assert refused.json()["detail"].startswith("The reservation is CANCELLED, and in this status ")
    assert api.get(f"/reservations/{hold.id}").json()["version"] == 2
    assert available(db, item) == 5


@pytest.mark.parametrize(
    ("before", "operation"),
    [([], "confirm"), ([], "cancel"), (["confirm"], "cancel"), ([], "reject"), (["confirm"], "check-in"),
     (["confirm"], "complete"), (["confirm", "check-in"], "complete"), (["confirm"], "no-show")],
)  # fmt: skip
@pytest.mark.parametrize("stale", [None, "If-Match", "expected_version"])
def test_asking_for_what_is_so_already_succeeds_and_changes_nothing(
    api: httpx.Client, db: Db, before: list[str], operation: str, stale: str | None
) -> None:
    """Whoever lost the first answer, and sends no key, asks again with the version from before."""
    hold = a_hold(db, an_item(db))
    for earlier in before:
        api.post(f"/reservations/{hold.id}/{earlier}").raise_for_status()
    version = len(before) + 1
    headers = {"If-Match": f'"{version}"'} if stale == "If-Match" else {}
    body = {"expected_version": version} if stale == "expected_version" else {}
    first = api.post(f"/reservations/{hold.id}/{operation}", json=body, headers=headers)
    after_first = everything(db)

    again = api.post(f"/reservations/{hold.id}/{operation}", json=body, headers=headers)

    assert (first.status_code, again.status_code) == (200, 200)
    assert (again.json(), again.headers["ETag"]) == (first.json(), first.headers["ETag"])
    assert first.json()["version"] == version + 1
    assert everything(db) == after_first


@pytest.mark.parametrize("operation", ["confirm", "cancel", "reject", "check-in", "complete", "no-show"])
@pytest.mark.parametrize("seen_by_maintenance", [False, True])
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"1"'}, {"If-Match": '"2"'}])
def test_every_change_of_a_hold_that_has_lapsed_is_refused_in_the_same_way(
    api: httpx.Client, db: Db, operation: str, seen_by_maintenance: bool, headers: dict[str, str]
) -> None:
    hold = an_overdue_hold(db, an_item(db))
    if seen_by_maintenance:
        with db.begin() as session:
            assert reservations.expire(session, 10, ROUTES) == 1

    refused = api.post(f"/reservations/{hold.id}/{operation}", headers=headers)

    assert refused.status_code == 409
    facts = {"type": "/problems/hold-expired", "reservation_id": str(hold.id)}
    assert facts.items() <= refused.json().items()
    assert _instant(refused.json()["expired_at"]) == hold.expires_at


@pytest.mark.parametrize(
    ("before", "operation", "status", "available_after"),
    [
        (["confirm"], "check-in", "CHECKED_IN", 3),
        (["confirm"], "complete", "COMPLETED", 3),
        (["confirm", "check-in"], "complete", "COMPLETED", 3),
        (["confirm"], "no-show", "NO_SHOW", 5),
        ([], "reject", "REJECTED", 5),
    ],
)
def test_every_status_of_the_lifecycle_can_be_reached(
    api: httpx.Client, db: Db, before: list[str], operation: str, status: str, available_after: int
) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)
    for earlier in before:
        api.post(f"/reservations/{hold.id}/{earlier}").raise_for_status()

    changed = api.post(f"/reservations/{hold.id}/{operation}")

    assert (changed.status_code, changed.json()["status"]) == (200, status)
    if status != "NO_SHOW":
        assert changed.json()[f"{status.lower()}_at"] == changed.json()["updated_at"]
    assert changed.headers["ETag"] == f'"{len(before) + 2}"'
    assert api.get(f"/reservations/{hold.id}").json() == changed.json()
    assert available(db, item) == available_after


def test_a_rejected_reservation_says_why(api: httpx.Client, db: Db) -> None:
    hold = a_hold(db, an_item(db))

    rejected = api.post(f"/reservations/{hold.id}/reject", json={"reason": "The room is being painted"})

    assert rejected.status_code == 200
    facts = {"status": "REJECTED", "cancellation_reason": "The room is being painted", "cancelled_at": None}
    assert facts.items() <= rejected.json().items()
    assert api.get(f"/reservations/{hold.id}").json() == rejected.json()


def test_an_overdue_hold_can_not_be_confirmed_and_expires_at_once(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=5)
    hold = an_overdue_hold(db, item, quantity=2)

    refused = api.post(f"/reservations/{hold.id}/confirm")

    assert refused.status_code == 409
    assert refused.json()["type"] == "/problems/hold-expired"
    assert _instant(refused.json()["expired_at"]) == hold.expires_at
    assert api.get(f"/reservations/{hold.id}").json()["status"] == "EXPIRED"
    assert available(db, item) == 5


@pytest.mark.parametrize("written", ['"1"', "*", '"7", "1"', '"unknown","1"', 'W/"1", "1"', '"7" ,, "1"'])
def test_a_version_that_if_match_names_is_changed(api: httpx.Client, db: Db, written: str) -> None:
    hold = a_hold(db, an_item(db))

    confirmed = api.post(f"/reservations/{hold.id}/confirm", headers={"If-Match": written})

    assert confirmed.status_code == 200


@pytest.mark.parametrize(
    "written", ['"7"', 'W/"1"', '"unknown"', '"01"', '"99999999999"', '"2", "7"', 'W/"1", "7"', '""', '",W/"']
)
@pytest.mark.parametrize("operation", ["confirm", "cancel"])
def test_another_version_than_if_match_names_is_not_changed(
    api: httpx.Client, db: Db, operation: str, written: str
) -> None:
    hold = a_hold(db, an_item(db))

    refused = api.post(f"/reservations/{hold.id}/{operation}", headers={"If-Match": written})

    assert refused.status_code == 412
    facts = {"if_match": written, "current_etag": '"1"', "current_version": 1}
    assert facts.items() <= refused.json().items()
    assert api.get(f"/reservations/{hold.id}").json()["status"] == "PENDING"


def test_if_match_may_be_spread_over_several_headers(api: httpx.Client, db: Db) -> None:
    hold = a_hold(db, an_item(db))

    confirmed = api.post(f"/reservations/{hold.id}/confirm", headers=[("If-Match", '"7"'), ("If-Match", '"1"')])

    assert confirmed.status_code == 200


@pytest.mark.parametrize("operation", ["confirm", "cancel"])
def test_another_version_than_was_expected_is_not_changed(api: httpx.Client, db: Db, operation: str) -> None:
    hold = a_hold(db, an_item(db))

    refused = api.post(f"/reservations/{hold.id}/{operation}", json={"expected_version": 7})

    assert refused.status_code == 409
    facts = {"type": "/problems/stale-version", "expected_version": 7, "current_version": 1}
    assert facts.items() <= refused.json().items()
    assert api.get(f"/reservations/{hold.id}").json()["status"] == "PENDING"


def test_an_unknown_address_and_a_wrong_method_are_have_different_problems(api: httpx.Client) -> None:
    nowhere, wrong = api.get("/nowhere"), api.delete("/reservations")

    assert (nowhere.status_code, nowhere.json()["title"]) == (404, "No such resource")
    assert (wrong.status_code, wrong.json()["title"]) == (405, "Method not allowed")
    assert set(wrong.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}


def _post(api: httpx.Client, path: str, body: bytes) -> httpx.Response:
    return api.post(path, content=body, headers={"Content-Type": "application/json"})


def _ids(page: Any) -> list[str]:
    return [one["id"] for one in page["reservations"]]


def _instant(written: str) -> datetime:
    return datetime.fromisoformat(written)


@pytest.mark.parametrize("operation", ["confirm", "cancel"])
def test_a_worker_is_woken_when_a_reservation_has_changed(
    api: httpx.Client, db: Db, redis: RedisServer, operation: str
) -> None:
    hold = a_hold(db, an_item(db))
    with Redis.from_url(redis.url) as doorbell:
        doorbell.flushall()

        api.post(f"/reservations/{hold.id}/{operation}").raise_for_status()

        wait_until("a worker is woken", lambda: doorbell.llen("dramatiq:holdfast") == 1)


def test_a_basket_holds_several_items_and_is_cancelled_as_a_whole(api: httpx.Client, db: Db) -> None:
    room, breakfast = an_item(db, quantity=3), an_item(db, quantity=10)
    body = {"lines": [{"sku": room.sku, "quantity": 1}, {"item_id": breakfast.id, "quantity": 2}]}

    made = api.post("/reservations", json=body, headers={"Idempotency-Key": "k"})
    again = api.post("/reservations", json=body, headers={"Idempotency-Key": "k"})

    assert made.status_code == 201 and again.text == made.text
    held = made.json()
    assert held["lines"] == [
        {"item_id": room.id, "sku": room.sku, "quantity": 1},
        {"item_id": breakfast.id, "sku": breakfast.sku, "quantity": 2},
    ]
    assert (held["item_id"], held["sku"], held["quantity"]) == (room.id, room.sku, 1)
    assert (available(db, room), available(db, breakfast)) == (2, 8)
    listed = api.get("/reservations", params={"sku": breakfast.sku}).json()["reservations"]
    assert [one["lines"] for one in listed] == [held["lines"]]
    api.post(f"/reservations/{held['id']}/cancel").raise_for_status()
    assert (available(db, room), available(db, breakfast)) == (3, 10)


def test_a_reservation_of_one_item_has_one_line(api: httpx.Client, db: Db) -> None:
    item = an_item(db)

    held = api.post("/reservations", json={"sku": item.sku, "quantity": 2}).json()

    assert held["lines"] == [{"item_id": item.id, "sku": item.sku, "quantity": 2}]


def test_a_basket_of_which_one_item_is_short_is_refused_with_that_item(api: httpx.Client, db: Db) -> None:
    room, breakfast = an_item(db, quantity=3), an_item(db, quantity=1)

    refused = api.post(
        "/reservations", json={"lines": [{"sku": room.sku, "quantity": 1}, {"sku": breakfast.sku, "quantity": 2}]}
    )

    assert refused.status_code == 409
    assert {"sku": breakfast.sku, "asked": 2, "available_quantity": 1}.items() <= refused.json().items()
    assert available(db, room) == 3


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "give item_id or sku, or lines"),
        ({"item_id": 1, "sku": "A"}, "give either item_id or sku, and not both"),
    ],
)
def test_a_request_that_does_not_name_one_item_is_told_how(
    api: httpx.Client, body: dict[str, object], reason: str
) -> None:
    refused = api.post("/reservations", json={"quantity": 1} | body)

    assert (refused.status_code, refused.json()["field"], refused.json()["reason"]) == (400, "item_id", reason)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"lines": []}, "lines"),
        ({"lines": [{"item_id": 1, "quantity": 1}] * 51}, "lines"),
        ({"lines": [{"item_id": 1, "quantity": 1}] * 2}, "lines"),
        ({"lines": [{"item_id": 1}]}, "lines.quantity"),
        ({"lines": [{"item_id": 1, "quantity": 0}]}, "lines.quantity"),
        ({"lines": [{"quantity": 1}]}, "lines.item_id"),
        ({"lines": [{"item_id": 1, "sku": "A", "quantity": 1}]}, "lines.item_id"),
        ({"lines": [{"item_id": 1, "quantity": 1, "price": 1}]}, "lines.price"),
        ({"lines": [{"item_id": 1, "quantity": 1}], "quantity": 1}, "quantity"),
        ({"lines": [{"item_id": 1, "quantity": 1}], "sku": "A"}, "sku"),
        ({"lines": [{"item_id": 1, "quantity": 1}], "item_id": 1}, "item_id"),
        ({"item_id": 1}, "quantity"),
        ({"quantity": 1}, "item_id"),
    ],
)
def test_lines_that_are_not_valid_are_refused_by_name(
    api: httpx.Client, db: Db, body: dict[str, object], field: str
) -> None:
    an_item(db)

    refused = api.post("/reservations", json=body)

    assert (refused.status_code, refused.json()["field"]) == (400, field)
