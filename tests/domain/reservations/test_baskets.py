"""Baskets: a reservation of several items is accepted, changed and given back as a whole."""

from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from sqlalchemy import select, text

from domain import items, reservations
from domain.idempotency import Answered
from domain.items import Item
from domain.outbox.table import outbox
from domain.reservations import BRIEF, Claim, Deferred, Filter, Reservation
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservation_lines
from domain.reservations.table import reservations as table
from domain.runtime.errors import IdempotencyKeyReused, Invalid, SoldOut, UnknownItem
from tests.support.builders import (
    Db,
    a_basket,
    a_hold,
    a_request,
    an_item,
    available,
    let_lapse,
    reserve,
    routes_of,
)
from tests.support.invariants import violations


def a_held_basket(db: Db, *lines: tuple[Item, int]) -> Reservation:
    (outcome,) = reserve(db, a_basket(*lines))
    assert isinstance(outcome, Answered), outcome
    with db.begin() as session:
        return reservations.find(session, Filter(), limit=1).reservations[0]


def a_lapsed_basket(db: Db, *lines: tuple[Item, int]) -> Reservation:
    basket = a_held_basket(db, *lines)
    let_lapse(db, basket.id)
    return basket


def status(db: Db, one: Reservation) -> str:
    """Return the status in the table, where a lapsed basket is PENDING."""
    with db.begin() as session:
        return str(session.execute(select(table.c.status).where(table.c.id == one.id)).scalar_one())


def changed(db: Db, one: Reservation, to: Status) -> object:
    with db.begin() as session:
        return reservations.change(session, one.id, to, routes=routes_of(db))


def test_a_basket_takes_the_units_of_all_its_lines_and_its_events_name_them(db: Db) -> None:
    room, breakfast, parking = (an_item(db, quantity=10) for _ in range(3))

    basket = a_held_basket(db, (parking, 1), (room, 2), (breakfast, 4))

    lines = [(line.item_id, line.sku, line.quantity) for line in basket.lines]
    assert lines == [(parking.id, parking.sku, 1), (room.id, room.sku, 2), (breakfast.id, breakfast.sku, 4)]
    assert (basket.item_id, basket.sku, basket.quantity) == lines[0]
    assert [available(db, one) for one in (room, breakfast, parking)] == [8, 6, 9]
    with db.begin() as session:
        for payload in session.execute(select(outbox.c.payload)).scalars():
            assert [(line["item_id"], line["sku"], line["quantity"]) for line in payload["lines"]] == lines
    assert violations(db) == {}


def test_a_request_of_one_line_writes_no_further_lines(db: Db) -> None:
    hold = a_hold(db, an_item(db), quantity=3)

    assert [line.quantity for line in hold.lines] == [3]
    with db.begin() as session:
        assert session.execute(select(reservation_lines)).all() == []


@pytest.mark.parametrize("short", [0, 1, 2])
def test_a_basket_of_which_one_line_is_short_takes_nothing(db: Db, short: int) -> None:
    stock = [an_item(db, quantity=1 if place == short else 5) for place in range(3)]

    refused, accepted = reserve(db, a_basket(*((item, 2) for item in stock)), a_request(stock[0], 1))

    assert isinstance(refused, SoldOut)
    assert (refused.sku, refused.asked, refused.available_quantity) == (stock[short].sku, 2, 1)
    assert isinstance(accepted, Answered)
    assert [available(db, item) for item in stock] == [item.available_quantity - (item is stock[0]) for item in stock]


def test_the_first_line_that_does_not_fit_is_named(db: Db) -> None:
    enough, short, shorter = an_item(db, quantity=5), an_item(db, quantity=1), an_item(db, quantity=0)

    (refused,) = reserve(db, a_basket((enough, 2), (short, 2), (shorter, 2)))

    assert isinstance(refused, SoldOut) and refused.sku == short.sku


def test_baskets_and_single_requests_of_one_set_are_decided_in_order_on_the_same_stock(db: Db) -> None:
    one, other = an_item(db, quantity=3), an_item(db, quantity=3)

    outcomes = reserve(
        db,
        a_basket((one, 2), (other, 1)),
        a_basket((one, 2), (other, 2)),  # of the one item, 1 is left
        a_request(other, 2),
        a_basket((other, 1), (one, 1)),  # of the other item, none is left
        a_request(one, 1),
    )

    assert [isinstance(outcome, Answered) for outcome in outcomes] == [True, False, True, False, True]
    assert (available(db, one), available(db, other)) == (0, 0)
    assert violations(db) == {}


def test_an_unknown_item_in_any_line_refuses_the_whole_basket(db: Db) -> None:
    item = an_item(db)

    (refused,) = reserve(db, a_request(item, lines=(Claim(item.id, 1), Claim("NOWHERE", 1))))

    assert isinstance(refused, UnknownItem) and refused.item == "NOWHERE"
    assert available(db, item) == 10


@pytest.mark.parametrize("by_sku", [False, True])
def test_the_same_item_twice_in_a_basket_is_refused(db: Db, by_sku: bool) -> None:
    item = an_item(db)

    (refused,) = reserve(db, a_request(item, lines=(Claim(item.id, 1), Claim(item.sku if by_sku else item.id, 1))))

    assert isinstance(refused, Invalid) and refused.field == "lines"
    assert available(db, item) == 10


def test_a_repeated_key_gets_the_first_basket_again_and_another_basket_is_refused(db: Db) -> None:
    one, other = an_item(db), an_item(db)

    first, again, reused = (reserve(db, a_basket((one, 1), (other, quantity), key="k"))[0] for quantity in (2, 2, 3))

    assert isinstance(first, Answered) and again == Answered(first.text, replayed=True)
    assert isinstance(reused, IdempotencyKeyReused)
    assert (available(db, one), available(db, other)) == (9, 8)


@pytest.mark.parametrize("to", [Status.CANCELLED, Status.REJECTED, Status.EXPIRED])
def test_a_basket_that_ends_gives_all_its_units_back(db: Db, to: Status) -> None:
    one, other = an_item(db), an_item(db)
    basket = a_held_basket(db, (one, 2), (other, 3))

    changed(db, basket, to)

    assert (available(db, one), available(db, other)) == (10, 10)
    assert violations(db) == {}


def test_a_basket_that_is_confirmed_keeps_all_its_units_and_does_not_lapse(db: Db) -> None:
    one, other = an_item(db), an_item(db, quantity=3)
    basket = a_held_basket(db, (one, 2), (other, 3))
    changed(db, basket, Status.CONFIRMED)
    let_lapse_anyway = "UPDATE reservations SET expires_at = now() - interval '1 s'"
    with db.begin() as session:
        session.execute(text(let_lapse_anyway))

    (refused,) = reserve(db, a_request(other, 1))

    assert isinstance(refused, SoldOut) and refused.available_quantity == 0
    assert violations(db) == {}


def test_maintenance_expires_a_basket_as_a_whole(db: Db) -> None:
    one, other = an_item(db), an_item(db)
    a_lapsed_basket(db, (one, 2), (other, 3))

    with db.begin() as session:
        assert reservations.expire(session, 10, routes_of(db)) == 1

    assert (available(db, one), available(db, other)) == (10, 10)
    assert violations(db) == {}


@pytest.mark.parametrize("place", [0, 1])
def test_a_request_that_finds_too_little_takes_a_lapsed_basket_back_as_a_whole(db: Db, place: int) -> None:
    """Whether the item is in its first line or in a further one."""
    stock = [an_item(db, quantity=3), an_item(db, quantity=3)]
    basket = a_lapsed_basket(db, (stock[0], 2), (stock[1], 2))

    (accepted,) = reserve(db, a_request(stock[place], 3))

    assert isinstance(accepted, Answered)
    assert status(db, basket) == Status.EXPIRED
    assert (available(db, stock[place]), available(db, stock[1 - place])) == (0, 3)
    assert violations(db) == {}


def test_a_basket_takes_back_what_has_lapsed_of_each_of_its_items(db: Db) -> None:
    one, other, third = (an_item(db, quantity=3) for _ in range(3))
    lapsed = [a_lapsed_basket(db, (one, 2), (third, 1)), a_lapsed_basket(db, (third, 1), (other, 2))]
    kept = a_held_basket(db, (one, 1), (third, 1))

    refused, accepted = reserve(db, a_basket((one, 3), (other, 3)), a_basket((other, 3), (one, 2)))

    assert isinstance(refused, SoldOut) and (refused.sku, refused.available_quantity) == (one.sku, 2)
    assert isinstance(accepted, Answered)
    assert [status(db, one) for one in lapsed] == [Status.EXPIRED] * 2
    assert status(db, kept) == Status.PENDING
    assert [available(db, item) for item in (one, other, third)] == [0, 0, 2]
    assert violations(db) == {}


def test_a_lapsed_basket_of_which_another_transaction_has_locked_an_item_is_not_waited_for(db: Db) -> None:
    """The request is deferred: the units are there, and will be had when the lock is released."""
    one, other = an_item(db, quantity=2), an_item(db, quantity=2)
    basket = a_lapsed_basket(db, (one, 2), (other, 2))

    with db.begin() as holder:
        items.lock(holder, [other.id])
        with db.begin() as session:
            (deferred,) = reservations.reserve(session, [a_request(one, 1)], routes_of(db), effort=BRIEF)
        assert isinstance(deferred, Deferred)
        assert status(db, basket) == Status.PENDING
    (accepted,) = reserve(db, a_request(one, 1))

    assert isinstance(accepted, Answered)
    assert (available(db, one), available(db, other)) == (1, 2)


def test_a_basket_with_an_item_that_another_transaction_has_locked_is_deferred_and_the_others_are_not(db: Db) -> None:
    locked, free = an_item(db), an_item(db)

    with db.begin() as holder:
        items.lock(holder, [locked.id])
        deferred, accepted = reserve(db, a_basket((free, 1), (locked, 1)), a_request(free, 1))

    assert isinstance(deferred, Deferred) and isinstance(accepted, Answered)
    assert available(db, free) == 9


def test_a_list_of_an_item_has_the_baskets_with_the_item_in_any_line(db: Db) -> None:
    one, other = an_item(db), an_item(db)
    basket = a_held_basket(db, (one, 1), (other, 1))
    single = a_hold(db, other)
    a_hold(db, one)

    with db.begin() as session:
        by_id = reservations.find(session, Filter(item_id=other.id), limit=10).reservations
        by_sku = reservations.find(session, Filter(sku=other.sku), limit=10).reservations

    assert [one.id for one in by_id] == [one.id for one in by_sku] == [single.id, basket.id]
    assert by_id[1].lines == basket.lines


def test_baskets_that_name_their_items_in_opposite_orders_never_deadlock(db: Db) -> None:
    """Some are cancelled, some lapse and are taken back by others that run short, some are expired by maintenance."""
    stock = [an_item(db, quantity=6) for _ in range(3)]

    def some(number: int) -> int:
        dice, made = Random(number), 0
        for _ in range(15):
            lines = [(item, dice.randint(1, 3)) for item in dice.sample(stock, dice.randint(1, 3))]
            (outcome,) = reserve(db, a_basket(*lines))
            made += isinstance(outcome, Answered)
            with db.begin() as session:
                (newest,) = reservations.find(session, Filter(), limit=1).reservations or (None,)
            if newest and dice.random() < 0.5:
                let_lapse(db, newest.id)
            elif newest:
                changed(db, newest, Status.CANCELLED)
            if dice.random() < 0.2:
                with db.begin() as session:
                    reservations.expire(session, 3, routes_of(db))
        return made

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(some, range(6))) > 5

    with db.begin() as session:
        deadlocks = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert session.execute(deadlocks).scalar_one() == 0
    assert violations(db) == {}
