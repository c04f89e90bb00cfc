"""Reserving and all that follows, step by step beside a model that fits on a page: the books always balance."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

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
from sqlalchemy import func, select, update

from domain import reservations
from domain.idempotency import Answered
from domain import invariants
from domain import items
from domain.reservations import Change, Filter, Reservation
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations as table
from domain.runtime.errors import HoldExpired, Refusal, SoldOut, InsufficientAvailableStock, WrongStatus
from tests.conftest import empty
from tests.support.builders import Db, a_request, an_item, reserve
from tests.support.models import MODEL
from tests.support.outbox import registered

#: Where a reservation may go, who asks for what on the way, and what is given back at its end.
ASKED = [Status.CONFIRMED, Status.CANCELLED, Status.REJECTED, Status.CHECKED_IN, Status.COMPLETED, Status.NO_SHOW]
MAY = {
    Status.PENDING: {Status.CONFIRMED, Status.CANCELLED, Status.REJECTED},
    Status.CONFIRMED: {Status.CHECKED_IN, Status.COMPLETED, Status.CANCELLED, Status.NO_SHOW},
    Status.CHECKED_IN: {Status.COMPLETED, Status.CANCELLED},
}
GIVES_BACK = {Status.CANCELLED, Status.REJECTED, Status.NO_SHOW, Status.EXPIRED}

ITEMS = 2
quantities = st.integers(1, 4)
places = st.integers(0, ITEMS - 1)


@dataclass
class Booked:
    """What the model knows of a reservation."""

    place: int
    quantity: int
    status: Status = Status.PENDING
    is_overdue: bool = False
    version: int = 1

    def lapses(self) -> bool:
        return self.is_overdue and self.status is Status.PENDING


class Booking(RuleBasedStateMachine):
    """Items, their stock, and everything that can happen to a hold."""

    held = Bundle("held")

    def __init__(self, db: Db) -> None:
        super().__init__()
        self.db = db
        self.left: list[int] = []
        self.stock: list[int] = []
        self.booked: dict[UUID, Booked] = {}

    @initialize(stock=st.lists(st.integers(0, 8), min_size=ITEMS, max_size=ITEMS))
    def open(self, stock: list[int]) -> None:
        empty(self.db.kw["bind"])
        registered(self.db)
        self.items = [an_item(self.db, quantity=quantity) for quantity in stock]
        self.left, self.stock = list(stock), list(stock)

    @rule(target=held, wanted=st.lists(st.tuples(places, quantities), min_size=1, max_size=4))
    def reserve(self, wanted: list[tuple[int, int]]) -> Any:
        outcomes = reserve(self.db, *(a_request(self.items[place], quantity) for place, quantity in wanted))

        expected = self._decide(wanted)
        assert [isinstance(outcome, Answered) for outcome in outcomes] == expected
        refused = [outcome for outcome in outcomes if isinstance(outcome, SoldOut)]
        assert len(refused) == expected.count(False)
        for (place, quantity), fits in zip(wanted, expected, strict=True):
            self.left[place] -= quantity if fits else 0
        made = self._new([one for one, fits in zip(wanted, expected, strict=True) if fits])
        return multiple(*made)

    def _decide(self, wanted: list[tuple[int, int]]) -> list[bool]:
        """Say who is served: where an item runs short, what has lapsed of it comes back first."""
        left, decided, short = list(self.left), [], set()
        for place, quantity in wanted:
            decided.append(quantity <= left[place])
            left[place] -= quantity if decided[-1] else 0
            short |= set() if decided[-1] else {place}
        lapsed = [one for one in self.booked.values() if one.place in short and one.lapses()]
        for one in lapsed:
            self._end(one, Status.EXPIRED)
        return self._decide(wanted) if lapsed else decided

    def _new(self, served: list[tuple[int, int]]) -> list[UUID]:
        with self.db.begin() as session:
            found = [one for one in reservations.find(session, Filter(), limit=200) if one.id not in self.booked]
        by_item = [item.id for item in self.items]
        new = [(by_item.index(one.item_id), one.quantity) for one in found]
        assert sorted(new) == sorted(served)
        self.booked |= {one.id: Booked(by_item.index(one.item_id), one.quantity) for one in found}
        return [one.id for one in found]

    @rule(asked=st.lists(st.tuples(held, st.sampled_from(ASKED)), min_size=1, max_size=3, unique_by=lambda one: one[0]))
    def change(self, asked: list[tuple[UUID, Status]]) -> None:
        with self.db.begin() as session:
            locked = {one.id: one for one in reservations.lock(session, [one for one, _ in asked])}
            answers = reservations.transition(session, [Change(of=locked[one], to=to) for one, to in asked])

        for (reservation_id, to), answer in zip(asked, answers, strict=True):
            self._check(self.booked[reservation_id], to, answer)

    def _check(self, one: Booked, to: Status, answer: Reservation | Refusal) -> None:
        if one.lapses():
            assert isinstance(answer, HoldExpired)
            self._end(one, Status.EXPIRED)
        elif to in MAY.get(one.status, ()):
            assert isinstance(answer, Reservation) and answer.status is to
            self._end(one, to)
        else:
            assert isinstance(answer, WrongStatus)

    def _end(self, one: Booked, to: Status) -> None:
        one.status, one.version = to, one.version + 1
        self.left[one.place] += one.quantity if to in GIVES_BACK else 0

    @rule(one=held)
    def lapse(self, one: UUID) -> None:
        a_minute_ago = func.now() - timedelta(minutes=1)
        with self.db.begin() as session:
            session.execute(update(table).where(table.c.id == one).values(expires_at=a_minute_ago))
        self.booked[one].is_overdue = True

    @rule(limit=st.integers(1, 3))
    def expire(self, limit: int) -> None:
        with self.db.begin() as session:
            expired = reservations.expire(session, limit)
            gone = session.execute(select(table.c.id).where(table.c.status == Status.EXPIRED)).scalars().all()

        lapsed = [one for one in self.booked.values() if one.lapses()]
        assert expired == min(limit, len(lapsed))
        new = [self.booked[one] for one in gone if self.booked[one].status is not Status.EXPIRED]
        assert len(new) == expired and all(one.lapses() for one in new)
        for one in new:
            self._end(one, Status.EXPIRED)

    @rule(place=places, by=st.integers(-4, 4))
    def adjust_stock(self, place: int, by: int) -> None:
        fits = self.left[place] + by >= 0
        try:
            with self.db.begin() as session:
                items.amend(session, self.items[place].id, adjust_quantity_by=by)
        except InsufficientAvailableStock:
            assert not fits
            return
        assert fits
        self.left[place] += by
        self.stock[place] += by

    @invariant()
    def the_books_balance(self) -> None:
        with self.db.begin() as session:
            broken = [finding for finding in invariants.examine(session) if finding.broken]
            stored = {one.id: (one.status, one.version) for one in reservations.find(session, Filter(), limit=200)}
            counted = [(one.available_quantity, one.stock_quantity) for one in items.find(session, limit=10)]

        assert broken == []
        assert stored == {one: (booked.status, booked.version) for one, booked in self.booked.items()}
        assert counted == list(zip(self.left, self.stock, strict=True))


def test_the_books_balance_whatever_happens(db: Db) -> None:
    class Here(Booking):
        def __init__(self) -> None:
            super().__init__(db)

    run_state_machine_as_test(Here, settings=MODEL)
