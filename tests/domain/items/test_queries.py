"""Reading items: by id, by sku, and page by page in order of id."""

import pytest

from domain import items
from domain.items import MAX_ID, Item
from domain.runtime.errors import UnknownItem
from tests.support.builders import Db, an_item


def got(db: Db, reference: int | str) -> Item:
    with db.begin() as session:
        return items.get(session, reference)


def test_an_item_is_found_by_its_id_and_by_its_sku(db: Db) -> None:
    item = an_item(db, sku="ROOM-101")
    an_item(db)

    assert [got(db, item.id), got(db, "ROOM-101")] == [item, item]


def test_a_number_is_an_id_and_text_is_a_sku(db: Db) -> None:
    first = an_item(db, sku="4006381333931")
    second = an_item(db, sku=str(first.id))

    assert [got(db, first.id), got(db, "4006381333931")] == [first, first]
    assert [got(db, second.id), got(db, str(first.id))] == [second, second]
    with pytest.raises(UnknownItem):
        got(db, str(second.id))


@pytest.mark.parametrize("reference", [1, 0, MAX_ID, "no such sku", "", "1", str(MAX_ID + 1), "9" * 64, "¹", "-1"])
def test_an_unknown_item_is_refused_by_the_reference_that_was_given(db: Db, reference: int | str) -> None:
    with pytest.raises(UnknownItem) as refused:
        got(db, reference)

    assert refused.value.item == reference


def test_items_are_listed_in_order_of_id_from_beyond_an_id(db: Db) -> None:
    first, second, third = (an_item(db) for _ in range(3))

    with db.begin() as session:
        assert items.find(session, limit=2) == [first, second]
        assert items.find(session, after=second.id, limit=2) == [third]
        assert items.find(session, after=third.id, limit=2) == []


def test_several_items_are_returned_in_the_order_in_which_they_are_named(db: Db) -> None:
    first, second = an_item(db, sku="A"), an_item(db, sku="B")

    with db() as session:
        assert items.named(session, ["B", first.id, second.id, "A"]) == [second, first, second, first]
        assert items.named(session, []) == []
        with pytest.raises(UnknownItem) as refused:
            items.named(session, ["A", "C", MAX_ID])

    assert refused.value.item == "C"
