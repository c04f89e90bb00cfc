"""Items over HTTP: creating, finding and changing them, without taking reserved units away."""

from collections.abc import Iterator
from itertools import islice
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from domain.items import MAX_QUANTITY
from tests.support.builders import Db, a_hold, an_item, available


def test_an_item_is_created_and_read_where_its_location_says(api: httpx.Client) -> None:
    wanted = {"sku": "ROOM-101", "name": "Room 101", "available_quantity": 3}

    created = api.post("/items", json=wanted)

    assert created.status_code == 201
    assert wanted.items() <= created.json().items()
    assert created.json()["stock_quantity"] == 3
    assert created.headers["Location"] == f"/items/{created.json()['id']}"
    assert api.get(created.headers["Location"]).json() == created.json()


def test_an_item_has_no_stock_unless_it_is_given_some(api: httpx.Client) -> None:
    created = api.post("/items", json={"sku": "ROOM-101", "name": "Room 101"})

    assert created.status_code == 201
    assert (created.json()["available_quantity"], created.json()["stock_quantity"]) == (0, 0)


def test_a_sku_is_given_once(api: httpx.Client, db: Db) -> None:
    an_item(db, quantity=3, sku="ROOM-101")

    taken = api.post("/items", json={"sku": "ROOM-101", "name": "Another room"})

    assert taken.status_code == 409
    assert (taken.json()["type"], taken.json()["sku"]) == ("urn:holdfast:problem:sku-taken", "ROOM-101")


@pytest.mark.parametrize("sku", ["ROOM-101", "4006381333931", "9" * 64, "a b&c?d=é%00"])
def test_an_item_is_found_by_its_sku(api: httpx.Client, db: Db, sku: str) -> None:
    item = an_item(db, sku=sku)

    found = api.get(f"/items/{quote(sku, safe='')}")

    assert found.status_code == 200
    assert (found.json()["id"], found.json()["sku"]) == (item.id, sku)


def test_digits_are_an_id_before_they_are_a_sku(api: httpx.Client, db: Db) -> None:
    first = an_item(db)
    second = an_item(db, sku=str(first.id))

    assert api.get(f"/items/{second.sku}").json()["id"] == first.id


@pytest.mark.parametrize("reference", ["NONE", "0", "7", "9223372036854775808", "9" * 5_000, "\N{SNOWMAN}"])
def test_an_unknown_item_is_not_found(api: httpx.Client, reference: str) -> None:
    unknown = api.get(f"/items/{reference}")

    assert unknown.status_code == 404
    assert (unknown.json()["type"], unknown.json()["item"]) == ("urn:holdfast:problem:unknown-item", reference)


def test_items_are_listed_page_by_page_in_order_of_id(api: httpx.Client, db: Db) -> None:
    made = [an_item(db).id for _ in range(5)]

    pages = list(islice(_pages(api, limit=2), 5))

    assert [[item["id"] for item in page] for page in pages] == [made[:2], made[2:4], made[4:]]


def test_without_items_there_is_one_empty_page(api: httpx.Client) -> None:
    assert api.get("/items").json() == {"items": [], "next_cursor": None}


def test_an_item_is_renamed(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=3)

    changed = api.patch(f"/items/{item.id}", json={"name": "The blue room"})

    assert changed.status_code == 200
    assert (changed.json()["name"], changed.json()["available_quantity"]) == ("The blue room", 3)
    assert api.get(f"/items/{item.id}").json() == changed.json()


@pytest.mark.parametrize(("by", "remaining"), [(5, 12), (-7, 0)])
def test_stock_is_added_and_removed_without_the_units_that_are_held(
    api: httpx.Client, db: Db, by: int, remaining: int
) -> None:
    item = an_item(db, quantity=10)
    a_hold(db, item, quantity=3)

    changed = api.patch(f"/items/{item.id}", json={"adjust_quantity_by": by})

    assert changed.status_code == 200
    assert (changed.json()["available_quantity"], changed.json()["stock_quantity"]) == (remaining, remaining + 3)


def test_stock_that_is_held_is_not_removed(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=10)
    a_hold(db, item, quantity=3)

    refused = api.patch(f"/items/{item.id}", json={"adjust_quantity_by": -8})

    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:holdfast:problem:insufficient-available-stock"
    assert (refused.json()["available_quantity"], refused.json()["adjust_quantity_by"]) == (7, -8)
    assert available(db, item) == 7


def test_no_more_is_put_into_stock_than_can_be_counted(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=10)

    refused = api.patch(f"/items/{item.id}", json={"adjust_quantity_by": MAX_QUANTITY - 9})

    assert (refused.status_code, refused.json()["field"]) == (400, "adjust_quantity_by")
    assert available(db, item) == 10


def test_an_unknown_item_is_not_changed(api: httpx.Client) -> None:
    unknown = api.patch("/items/7", json={"name": "Room 101"})

    assert unknown.status_code == 404
    assert (unknown.json()["item"], unknown.json()["field"]) == (7, "item_id")


def _pages(api: httpx.Client, **query: int) -> Iterator[Any]:
    cursor = None
    while True:
        page = api.get("/items", params=query | ({"cursor": cursor} if cursor else {})).json()
        yield page["items"]
        if (cursor := page["next_cursor"]) is None:
            return
