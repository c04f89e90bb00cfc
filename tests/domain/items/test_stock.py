"""Changing items: a sku is unique, stock is moved under locks, and no more is removed than is available."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from domain import items
from domain.items import MAX_QUANTITY, Item
from domain.items.table import SKU_IS_UNIQUE
from domain.runtime.database_errors import constraint_of
from domain.runtime.errors import InsufficientAvailableStock, Invalid, SkuTaken, UnknownItem
from tests.support.builders import Db, a_hold, an_item, available
from tests.support.waiting import wait_until_blocked


def created(session: Session, sku: str, quantity: int = 5) -> Item:
    return items.create(session, sku=sku, name="Double room", available_quantity=quantity)


def amended(db: Db, item_id: int, *, name: str | None = None, by: int = 0) -> Item:
    with db.begin() as session:
        return items.amend(session, item_id, name=name, adjust_quantity_by=by)


def stored(db: Db, item: Item) -> Item:
    with db.begin() as session:
        return items.get(session, item.id)


def test_a_new_item_has_all_its_units_available(db: Db) -> None:
    with db.begin() as session:
        item = created(session, "ROOM-101", quantity=5)

    assert (item.sku, item.name) == ("ROOM-101", "Double room")
    assert (item.available_quantity, item.stock_quantity) == (5, 5)
    assert stored(db, item) == item


def test_a_second_item_with_the_same_sku_is_refused_and_the_transaction_continues(db: Db) -> None:
    an_item(db, sku="ROOM-101")

    with db.begin() as session:
        with pytest.raises(SkuTaken) as refused:
            created(session, "ROOM-101")
        other = created(session, "ROOM-102")

    assert refused.value.sku == "ROOM-101"
    assert stored(db, other).sku == "ROOM-102"


def test_an_item_that_violates_another_constraint_does_not_count_as_a_taken_sku(db: Db) -> None:
    """The error is judged by the name of its constraint, and an unexpected one is raised as it is."""
    with db() as session:
        with pytest.raises(IntegrityError) as caught:
            created(session, "ROOM-101", quantity=-1)
        other = created(session, "ROOM-101", quantity=0)
        session.commit()

    assert constraint_of(caught.value) == "ck_items_never_oversold"
    assert stored(db, other).available_quantity == 0


def test_the_constraint_that_makes_skus_unique_has_the_name_by_which_it_is_judged(db: Db) -> None:
    named = text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name")

    with db.begin() as session:
        assert session.execute(named, {"name": SKU_IS_UNIQUE}).scalar_one() == "UNIQUE (sku)"


def test_items_are_locked_by_id_and_by_sku_in_order_of_id_and_unknown_ones_are_left_out(db: Db) -> None:
    first, second, third = an_item(db, sku="A"), an_item(db, sku="B"), an_item(db, sku="C")

    with db.begin() as session:
        locked = items.lock(session, [third.id, first.id, third.id + 1, "B", "A", "no such sku"])

    assert locked == [first, second, third]


def test_a_locked_item_can_not_be_locked_again_before_the_transaction_ends(db: Db) -> None:
    item = an_item(db, quantity=5)

    with ThreadPoolExecutor(1) as elsewhere, db() as first:
        items.lock(first, [item.id])
        second = elsewhere.submit(amended, db, item.id, by=1)
        wait_until_blocked(db)
        items.move(first, {item.id: -3})
        first.commit()

        assert second.result().available_quantity == 3


def test_stock_is_taken_and_given_back_for_many_items_at_once(db: Db) -> None:
    first, second = an_item(db, quantity=5), an_item(db, quantity=5)

    with db.begin() as session:
        items.move(session, {first.id: -2, second.id: -5})
    with db.begin() as session:
        items.move(session, {second.id: 1})

    assert (available(db, first), available(db, second)) == (3, 1)
    assert stored(db, first).stock_quantity == 5


def test_no_more_than_the_available_units_can_be_taken(db: Db) -> None:
    item = an_item(db, quantity=5)

    with pytest.raises(IntegrityError) as caught, db.begin() as session:
        items.move(session, {item.id: -6})

    assert constraint_of(caught.value) == "ck_items_never_oversold"
    assert available(db, item) == 5


def test_an_item_is_renamed_and_its_stock_is_changed(db: Db) -> None:
    item = an_item(db, quantity=5)
    a_hold(db, item, quantity=2)

    after = amended(db, item.id, name="Suite", by=4)

    assert (after.name, after.available_quantity, after.stock_quantity) == ("Suite", 7, 9)
    assert after.updated_at > item.updated_at
    assert stored(db, item) == after


def test_units_that_are_held_can_not_be_removed_from_stock(db: Db) -> None:
    item = an_item(db, quantity=5)
    a_hold(db, item, quantity=2)

    with pytest.raises(InsufficientAvailableStock) as refused:
        amended(db, item.id, by=-4)

    assert (refused.value.adjust_quantity_by, refused.value.available_quantity) == (-4, 3)
    assert amended(db, item.id, by=-3).available_quantity == 0


def test_stock_can_not_grow_beyond_what_its_column_can_hold(db: Db) -> None:
    item = an_item(db, quantity=5)

    with pytest.raises(Invalid) as refused:
        amended(db, item.id, by=MAX_QUANTITY - 4)

    assert refused.value.field == "adjust_quantity_by"
    assert amended(db, item.id, by=MAX_QUANTITY - 5).stock_quantity == MAX_QUANTITY


def test_an_unknown_item_can_not_be_changed(db: Db) -> None:
    with pytest.raises(UnknownItem) as refused:
        amended(db, 1)

    assert refused.value.item == 1
