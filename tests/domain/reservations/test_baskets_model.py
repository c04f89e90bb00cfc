"""Baskets beside a model, step by step: all lines or none, and every unit is given back once."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from domain import items, reservations
from domain.idempotency import Answered
from domain.reservations import Change, Extension, Filter
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations as table
from domain.runtime.errors import SoldOut
from tests.conftest import empty
from tests.support.builders import ROUTES, Db, a_basket, an_item, let_lapse, reserve, stored_as, with_routes
from tests.support.hypothesis_settings import MODEL
from tests.support.invariants import violations

ITEMS = 3

#: The statuses that lists are asked for.
LISTED = [Status.PENDING, Status.EXPIRED, Status.CANCELLED]

#: The quantity of each item of a basket, by the place of the item, in the order of its lines.
Wanted = dict[int, int]

baskets = st.dictionaries(st.integers(0, ITEMS - 1), st.integers(1, 3), min_size=1)


@dataclass
class ModelBasket:
    """A reservation in the model."""

    wanted: Wanted
    status: Status = Status.PENDING
    is_overdue: bool = False

    def is_lapsed(self) -> bool:
        return self.is_overdue and self.status is Status.PENDING


class Baskets(RuleBasedStateMachine):
    """Items with few units, and baskets of them that are made, lapse, and end."""

    made = Bundle("made")

    def __init__(self, db: Db) -> None:
        super().__init__()
        self.db = db
        self.available: list[int] = []
        self.baskets: dict[UUID, ModelBasket] = {}

    @initialize(stock=st.lists(st.integers(1, 6), min_size=ITEMS, max_size=ITEMS))
    def open(self, stock: list[int]) -> None:
        empty(self.db.kw["bind"])
        self.db = with_routes(self.db, ROUTES)
        self.items = [an_item(self.db, quantity=quantity) for quantity in stock]
        self.available, self.stock = list(stock), list(stock)

    @rule(target=made, wanted=st.lists(baskets, min_size=1, max_size=3))
    def reserve(self, wanted: list[Wanted]) -> Any:
        with_lapsed = self._with_lapsed()
        asked = [a_basket(*((self.items[place], quantity) for place, quantity in one.items())) for one in wanted]

        outcomes = reserve(self.db, *asked)

        self._note_what_was_taken_back()
        accepted = [isinstance(outcome, Answered) for outcome in outcomes]
        for one, outcome in zip(wanted, outcomes, strict=True):
            if isinstance(outcome, Answered):
                self._take(one, with_lapsed)
            else:
                self._check_that_it_was_short(one, outcome, with_lapsed)
        return multiple(*self._new([one for one, fits in zip(wanted, accepted, strict=True) if fits]))

    def _with_lapsed(self) -> list[int]:
        """Return what would be available if all lapsed baskets gave back their units."""
        lapsed = [one.wanted for one in self.baskets.values() if one.is_lapsed()]
        return [free + sum(one.get(place, 0) for one in lapsed) for place, free in enumerate(self.available)]

    def _note_what_was_taken_back(self) -> None:
        ended = stored_as(self.db, Status.EXPIRED)
        for reservation_id, one in self.baskets.items():
            if reservation_id in ended and one.status is not Status.EXPIRED:
                assert one.is_lapsed()
                self._end(one, Status.EXPIRED)

    def _take(self, wanted: Wanted, with_lapsed: list[int]) -> None:
        for place, quantity in wanted.items():
            self.available[place] -= quantity
            with_lapsed[place] -= quantity
        assert min(self.available) >= 0

    def _check_that_it_was_short(self, wanted: Wanted, outcome: object, with_lapsed: list[int]) -> None:
        assert isinstance(outcome, SoldOut), outcome
        place = [item.sku for item in self.items].index(outcome.sku)
        assert outcome.asked == wanted[place] > outcome.available_quantity
        if any(quantity > self.stock[place] for place, quantity in wanted.items()):
            return  # nothing is taken back for what never fits
        assert place == next(place for place, quantity in wanted.items() if quantity > with_lapsed[place])
        assert outcome.available_quantity == with_lapsed[place]

    def _new(self, accepted: list[Wanted]) -> list[UUID]:
        with self.db.begin() as session:
            found = [
                one
                for one in reservations.find(session, Filter(), limit=500).reservations
                if one.id not in self.baskets
            ]
        places = {item.id: place for place, item in enumerate(self.items)}
        # Ids are in the order of the requests, and a list begins with the newest.
        new = {one.id: {places[line.item_id]: line.quantity for line in one.lines} for one in reversed(found)}
        assert [list(one.items()) for one in new.values()] == [list(one.items()) for one in accepted]
        self.baskets |= {reservation_id: ModelBasket(wanted) for reservation_id, wanted in new.items()}
        return list(new)

    @rule(one=made, to=st.sampled_from([Status.CONFIRMED, Status.CANCELLED, Status.REJECTED]))
    def change(self, one: UUID, to: Status) -> None:
        with self.db.begin() as session:
            locked = reservations.lock(session, [one])
            reservations.transition(session, [Change(of=locked[0], to=to)], ROUTES)

        basket = self.baskets[one]
        if basket.is_lapsed():
            self._end(basket, Status.EXPIRED)
        elif basket.status is Status.PENDING and to is Status.CONFIRMED:
            basket.status = to
        elif basket.status is Status.PENDING or (basket.status, to) == (Status.CONFIRMED, Status.CANCELLED):
            self._end(basket, to)

    @rule(one=made, hours=st.integers(1, 24))
    def extend(self, one: UUID, hours: int) -> None:
        with self.db.begin() as session:
            reservations.change(session, one, Extension(timedelta(hours=hours)), routes=ROUTES)

        basket = self.baskets[one]
        if basket.is_lapsed():
            self._end(basket, Status.EXPIRED)

    def _end(self, basket: ModelBasket, to: Status) -> None:
        basket.status = to
        for place, quantity in basket.wanted.items():
            self.available[place] += quantity

    @rule(one=made)
    def lapse(self, one: UUID) -> None:
        let_lapse(self.db, one)
        self.baskets[one].is_overdue = True

    @rule()
    def expire(self) -> None:
        with self.db.begin() as session:
            expired = reservations.expire(session, 500, ROUTES)

        lapsed = [one for one in self.baskets.values() if one.is_lapsed()]
        assert expired == len(lapsed)
        for one in lapsed:
            self._end(one, Status.EXPIRED)

    @rule(
        place=st.integers(0, ITEMS - 1),
        status=st.sampled_from([None, *LISTED]),
    )
    def list_of_an_item(self, place: int, status: Status | None) -> None:
        wanted = Filter(item_id=self.items[place].id, status=status)
        with self.db.begin() as session:
            found = reservations.find(session, wanted, limit=500).reservations

        by_now = {
            one: Status.EXPIRED if basket.is_lapsed() else basket.status
            for one, basket in self.baskets.items()
            if place in basket.wanted
        }
        expected = sorted((one for one, its in by_now.items() if status in (None, its)), reverse=True)
        assert [one.id for one in found] == expected

    @invariant()
    def the_database_agrees_with_the_model(self) -> None:
        with self.db.begin() as session:
            stored = {one.id: Status(one.status) for one in session.execute(select(table.c.id, table.c.status))}
            counted = [one.available_quantity for one in items.find(session, limit=10)]

        assert violations(self.db) == {}
        assert stored == {one: basket.status for one, basket in self.baskets.items()}
        assert counted == self.available


@pytest.mark.slow
def test_whatever_happens_to_baskets_the_database_agrees_with_the_model(db: Db) -> None:
    class Here(Baskets):
        def __init__(self) -> None:
            super().__init__(db)

    run_state_machine_as_test(Here, settings=MODEL)
