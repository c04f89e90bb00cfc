"""Items over HTTP: creating, finding and changing them, without taking reserved units away."""

from collections.abc import Iterator
from itertools import islice
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from api.items.schemas import ItemChange, ItemView, NewItem
from domain import calendars
from domain.items import MAX_QUANTITY
from tests.support.builders import Db, a_hold, an_item, available


def test_an_item_is_created_and_read_where_its_location_says(api: httpx.Client) -> None:
    wanted = {"sku": "ROOM-101", "name": "Room 101", "available_quantity": 3}

    created = api.post("/items", json=wanted)

    assert created.status_code == 201
    assert wanted.items() <= created.json().items()
    assert created.json()["stock_quantity"] == 3
    assert created.headers["Location"] == f"/items/by-id/{created.json()['id']}"
    assert api.get(created.headers["Location"]).json() == created.json()


def test_an_item_has_no_stock_unless_it_is_given_some(api: httpx.Client) -> None:
    created = api.post("/items", json={"sku": "ROOM-101", "name": "Room 101"})

    assert created.status_code == 201
    assert (created.json()["available_quantity"], created.json()["stock_quantity"]) == (0, 0)


@pytest.mark.parametrize("shape", [NewItem, ItemChange, ItemView])
def test_all_settings_of_calendars_can_be_given_changed_and_read(shape: type[msgspec.Struct]) -> None:
    assert set(calendars.Settings._fields) <= set(shape.__struct_fields__)


def test_a_sku_is_given_once(api: httpx.Client, db: Db) -> None:
    an_item(db, quantity=3, sku="ROOM-101")

    taken = api.post("/items", json={"sku": "ROOM-101", "name": "Another room"})

    assert taken.status_code == 409
    assert (taken.json()["type"], taken.json()["sku"]) == ("/problems/sku-taken", "ROOM-101")


#: Skus that contain what means something in a path, or look like an id or a path.
SKUS = [
    "ROOM-101", "4006381333931", "9" * 64, "a b&c?d=é%00", "A/B", "a//b", "/a/", "/", "by-id", "by-id/", "by-id/1",
    "by-id/2", "%2F", "a%2Fb", "%252F", "%", "#", "?", "a#b?c=d", "+", "a+b c", "..", "a/../b", "é", "\N{SNOWMAN}" * 64,
    "😀", "\x7f\t", " ", "sku;v=1", "\\", "BY-ID", "by-id%2F1",
]  # fmt: skip


@pytest.mark.parametrize("sku", SKUS)
def test_an_item_is_found_and_changed_by_its_sku_and_by_its_id_whatever_the_sku_is(api: httpx.Client, sku: str) -> None:
    api.post("/items", json={"sku": "OTHER", "name": "Other"})  # it has the id 1
    created = api.post("/items", json={"sku": sku, "name": "Thing", "available_quantity": 1})
    assert created.status_code == 201
    paths = [f"/items/{written(sku)}", created.headers["Location"], f"/items/by-id/{created.json()['id']}"]

    for by, path in enumerate(paths, start=1):
        found = api.get(path)
        changed = api.patch(path, json={"adjust_quantity_by": by})

        assert (found.status_code, found.json()["sku"]) == (200, sku)
        assert (changed.status_code, changed.json()["sku"]) == (200, sku)
    assert api.get(paths[0]).json()["stock_quantity"] == 7
    assert api.get("/items/OTHER").json()["stock_quantity"] == 0


def written(sku: str) -> str:
    """Write a sku into a path. Dots alone would be taken for a step up by the client."""
    return "%2E%2E" if sku == ".." else quote(sku, safe="")


@pytest.mark.parametrize("path", ["/items/A/B", "/items/A%2FB", "/items/A%2fB", "/items/%41/B", "/it%65ms/A%2FB"])
def test_a_slash_in_a_sku_may_be_written_as_it_is(api: httpx.Client, db: Db, path: str) -> None:
    item = an_item(db, sku="A/B")

    assert api.get(path).json()["id"] == item.id


@pytest.mark.parametrize("path", ["/items/A//B", "/items/A/B/", "/items//A/B", "/items/A%2F%2FB"])
def test_a_path_is_not_shortened_to_that_of_another_item(api: httpx.Client, db: Db, path: str) -> None:
    an_item(db, sku="A/B")

    assert api.get(path).status_code == 404


def test_an_id_is_never_taken_for_a_sku_nor_a_sku_for_an_id(api: httpx.Client, db: Db) -> None:
    first = an_item(db)
    second = an_item(db, sku=str(first.id))

    assert api.get(f"/items/{first.id}").json()["id"] == second.id
    assert api.get(f"/items/by-id/{first.id}").json()["id"] == first.id
    assert api.patch(f"/items/{first.id}", json={"name": "X"}).json()["id"] == second.id
    assert api.get(f"/items/{second.id}").status_code == 404


@pytest.mark.parametrize("reference", ["NONE", "0", "7", "9223372036854775808", "9" * 500, "\N{SNOWMAN}"])
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_an_unknown_item_is_not_found(api: httpx.Client, method: str, reference: str) -> None:
    unknown = api.request(method, f"/items/{reference}", json={"name": "X"} if method == "PATCH" else None)

    assert unknown.status_code == 404
    facts = {"type": "/problems/unknown-item", "item": reference, "field": "sku"}
    assert facts.items() <= unknown.json().items()


@pytest.mark.parametrize("by_id", [False, True])
def test_an_item_has_an_etag_that_changes_with_it(api: httpx.Client, db: Db, by_id: bool) -> None:
    created = api.post("/items", json={"sku": "A", "name": "A", "available_quantity": 5})
    path = created.headers["Location"] if by_id else "/items/A"

    read = api.get(path)
    renamed = api.patch(path, json={"name": "B"})
    api.post("/reservations", json={"sku": "A", "quantity": 1}).raise_for_status()
    reserved = api.get(path)

    assert created.headers["ETag"] == read.headers["ETag"]
    assert len({answer.headers["ETag"] for answer in (created, renamed, reserved)}) == 3


@pytest.mark.parametrize("path", ["/items/A", "/items/by-id/1"])
def test_only_the_item_that_if_match_names_is_changed(api: httpx.Client, path: str) -> None:
    stale = api.post("/items", json={"sku": "A", "name": "A"}).headers["ETag"]
    current = api.patch(path, json={"name": "B"}, headers={"If-Match": f'"other", {stale}'}).headers["ETag"]

    refused = [api.patch(path, json={"name": "C"}, headers={"If-Match": tag}) for tag in (stale, f"W/{current}", '"1"')]
    changed = api.patch(path, json={"name": "D"}, headers={"If-Match": current})
    any_version = api.patch(path, json={"name": "E"}, headers={"If-Match": "*"})

    assert [answer.status_code for answer in refused] == [412] * 3
    facts = {"type": "/problems/stale-precondition", "if_match": stale, "current_etag": current}
    assert facts.items() <= refused[0].json().items()
    assert "current_version" not in refused[0].json()
    assert [answer.status_code for answer in (changed, any_version)] == [200, 200]


@pytest.mark.parametrize("body", ["{}", " { } "])
def test_an_empty_change_is_refused(api: httpx.Client, db: Db, body: str) -> None:
    item = an_item(db)

    refused = api.patch(
        f"/items/by-id/{item.id}", content=body, headers={"Content-Type": "application/json", "Idempotency-Key": "k"}
    )

    assert (refused.status_code, refused.json()["field"]) == (400, "body")
    assert "name or adjust_quantity_by" in refused.json()["detail"]


def test_items_are_listed_page_by_page_in_order_of_id(api: httpx.Client, db: Db) -> None:
    made = [an_item(db).id for _ in range(5)]

    pages = list(islice(_pages(api, limit=2), 5))

    assert [[item["id"] for item in page] for page in pages] == [made[:2], made[2:4], made[4:]]


def test_without_items_there_is_one_empty_page(api: httpx.Client) -> None:
    assert api.get("/items").json() == {"items": [], "next_cursor": None}


def test_an_item_is_renamed(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=3)

    changed = api.patch(f"/items/by-id/{item.id}", json={"name": "The blue room"})

    assert changed.status_code == 200
    assert (changed.json()["name"], changed.json()["available_quantity"]) == ("The blue room", 3)
    assert api.get(f"/items/by-id/{item.id}").json() == changed.json()


@pytest.mark.parametrize(("by", "remaining"), [(5, 12), (-7, 0)])
def test_stock_is_added_and_removed_without_the_units_that_are_held(
    api: httpx.Client, db: Db, by: int, remaining: int
) -> None:
    item = an_item(db, quantity=10)
    a_hold(db, item, quantity=3)

    changed = api.patch(f"/items/by-id/{item.id}", json={"adjust_quantity_by": by})

    assert changed.status_code == 200
    assert (changed.json()["available_quantity"], changed.json()["stock_quantity"]) == (remaining, remaining + 3)


def test_stock_that_is_held_is_not_removed(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=10)
    a_hold(db, item, quantity=3)

    refused = api.patch(f"/items/by-id/{item.id}", json={"adjust_quantity_by": -8})

    assert refused.status_code == 409
    assert refused.json()["type"] == "/problems/insufficient-available-stock"
    assert (refused.json()["available_quantity"], refused.json()["adjust_quantity_by"]) == (7, -8)
    assert available(db, item) == 7


def test_no_more_is_put_into_stock_than_can_be_counted(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=10)

    refused = api.patch(f"/items/by-id/{item.id}", json={"adjust_quantity_by": MAX_QUANTITY - 9})

    assert (refused.status_code, refused.json()["field"]) == (400, "adjust_quantity_by")
    assert available(db, item) == 10


def test_an_unknown_item_is_not_changed(api: httpx.Client) -> None:
    unknown = api.patch("/items/by-id/7", json={"name": "Room 101"})

    assert unknown.status_code == 404
    assert (unknown.json()["item"], unknown.json()["field"]) == (7, "item_id")


def _pages(api: httpx.Client, **query: int) -> Iterator[Any]:
    cursor = None
    while True:
        page = api.get("/items", params=query | ({"cursor": cursor} if cursor else {})).json()
        yield page["items"]
        if (cursor := page["next_cursor"]) is None:
            return
