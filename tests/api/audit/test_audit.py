"""The audit over HTTP: what is changed by hand is in it, and operators can ask it."""

from typing import Any

import httpx
import pytest

from tests.support.audit import FORGED, forge, recorded
from tests.support.builders import Db, a_calendar, an_item
from tests.support.operations import audited

ANN = {"X-Client-Id": "ann@desk"}


def page(api: httpx.Client, **query: Any) -> Any:
    response = api.get("/audit", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_stock_that_is_changed_by_hand_is_in_the_audit_once(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=3)
    for _ in range(2):
        changed = {"adjust_quantity_by": -2, "name": "Mug"}
        api.patch(f"/items/by-id/{item.id}", json=changed, headers=ANN | {"Idempotency-Key": "1"})

    (entry,) = page(api)["entries"]

    assert (entry["who"], entry["action"], entry["subject"]) == ("ann@desk", "item.stock", f"item:{item.id}")
    assert entry["selection"] == {"adjust_quantity_by": "-2"}
    assert (entry["why"], entry["operation_id"]) == (None, None)


def test_the_capacity_of_a_calendar_is_stock(api: httpx.Client, db: Db) -> None:
    rooms = a_calendar(db, capacity=3)

    api.patch(f"/items/by-id/{rooms.id}", json={"capacity": 4}, headers=ANN)

    assert page(api, action="item.stock")["entries"][0]["selection"] == {"capacity": "4"}


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ({"available_quantity": 500}, {"available_quantity": "500"}),
        ({"kind": "calendar", "capacity": 3, "time_zone": "UTC"}, {"capacity": "3"}),
    ],
)
def test_what_an_item_is_created_with_is_in_the_audit_once(
    api: httpx.Client, given: dict[str, Any], recorded: dict[str, str]
) -> None:
    for _ in range(2):
        headers = ANN | {"Idempotency-Key": "1"}
        made = api.post("/items", json={"sku": "A", "name": "A", "venue": "lisbon"} | given, headers=headers).json()
    assert api.post("/items", json={"sku": "A", "name": "A"} | given, headers=ANN).status_code == 409
    assert api.post("/items", json={"sku": "EMPTY", "name": "Empty"}, headers=ANN).status_code == 201

    (entry,) = page(api)["entries"]

    assert (entry["who"], entry["action"], entry["subject"]) == ("ann@desk", "item.stock", f"item:{made['id']}")
    assert entry["selection"] == recorded


def test_who_gives_an_item_to_another_venue_or_provider_is_in_the_audit(api: httpx.Client, db: Db) -> None:
    rooms = a_calendar(db, capacity=3, venue="lisbon")
    path = f"/items/by-id/{rooms.id}"

    changes = {"venue": "porto", "provider": "otto"}, {"venue": "porto", "name": "Room"}, {"provider": None}
    for change in changes:
        assert api.patch(path, json=change, headers=ANN).status_code == 200

    last, first = page(api)["entries"]
    assert {(one["who"], one["action"], one["subject"]) for one in (first, last)} == {
        ("ann@desk", "item.owner", f"item:{rooms.id}")
    }
    assert first["selection"] == {"venue_before": "lisbon", "venue": "porto", "provider": "otto"}
    assert last["selection"] == {"provider_before": "otto"}


def test_what_is_refused_or_changes_no_quantity_is_not_in_the_audit(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=3)

    assert api.patch(f"/items/by-id/{item.id}", json={"adjust_quantity_by": -4}).status_code == 409
    assert api.patch(f"/items/by-id/{item.id}", json={"name": "Mug"}).status_code == 200

    assert audited(db) == []


def test_entries_are_listed_page_by_page_the_newest_first(api: httpx.Client, db: Db) -> None:
    ids = recorded(db, 5)
    recorded(db, 2, who="ben")

    first = page(api, who="ann", limit=3)
    second = page(api, who="ann", limit=3, cursor=first["next_cursor"])

    assert [one["id"] for listed in (first, second) for one in listed["entries"]] == [*reversed(ids)]
    assert second["next_cursor"] is None


def test_entries_are_found_by_subject_action_and_time(api: httpx.Client, db: Db) -> None:
    recorded(db, 3)
    moment = page(api)["entries"][0]["happened_at"]

    assert len(page(api, subject="item:1")["entries"]) == 1
    assert len(page(api, since=moment)["entries"]) == 1
    assert page(api, action="replay")["entries"] == []


@pytest.mark.parametrize(
    "query", [{"since": "2030-01-31T12:00:00"}, {"limit": 0}, {"limit": 1001}, {"cursor": 0}, {"who": "a\0"}, {"x": 1}]
)
def test_a_query_that_is_wrong_is_refused(api: httpx.Client, query: dict[str, Any]) -> None:
    assert api.get("/audit", params=query).status_code == 400


@pytest.mark.parametrize("kind", FORGED)
def test_an_entry_that_can_not_be_read_hides_no_other(api: httpx.Client, db: Db, kind: str) -> None:
    recorded(db)
    forge(db, kind)

    forged, genuine = page(api)["entries"]

    assert (forged["who"], genuine["who"], genuine["unreadable"]) == ("eve", "ann", None)
    assert (forged["happened_at"] is None) == ("time" in kind)
    assert ("can't be read in full" in (forged["unreadable"] or "")) == (kind not in ("depth", "number"))
