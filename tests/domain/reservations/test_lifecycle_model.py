"""Reservations beside a model, step by step: stock, statuses and versions always agree with it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
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
from sqlalchemy import func, select, update

from domain import invariants, items, reservations
from domain.idempotency import Answered
from domain.reservations import Amendment, Change, Extension, Filter, Reservation
from domain.reservations.lifecycle import Kind, Status
from domain.reservations.table import history
from domain.reservations.table import reservations as table
from domain.runtime.errors import (
    HoldExpired,
    HoldTooLong,
    InsufficientAvailableStock,
    Refusal,
    SoldOut,
    WrongStatus,
)
from tests.conftest import empty
from tests.support.builders import ROUTES, Db, a_request, an_item, reserve, with_routes
from tests.support.hypothesis_settings import MODEL

#: The statuses that are asked for, those that a status may change to, and those that give stock back.
ASKED = [Status.CONFIRMED, Status.CANCELLED, Status.REJECTED, Status.CHECKED_IN, Status.COMPLETED, Status.NO_SHOW]
MAY = {
    Status.PENDING: {Status.CONFIRMED, Status.CANCELLED, Status.REJECTED},
    Status.CONFIRMED: {Status.CHECKED_IN, Status.COMPLETED, Status.CANCELLED, Status.NO_SHOW},
    Status.CHECKED_IN: {Status.COMPLETED, Status.CANCELLED},
}
HAS_NOT_ENDED = MAY.keys()
GIVES_BACK = {Status.CANCELLED, Status.REJECTED, Status.NO_SHOW, Status.EXPIRED}

ITEMS = 2
quantities = st.integers(1, 4)
places = st.integers(0, ITEMS - 1)

#: For how long holds are to last: for less and for more than they do, for the most that there is, and for longer.
LASTING = [timedelta(minutes=1), timedelta(hours=1), timedelta(days=6), timedelta(days=7, seconds=1)]
MAX_HOLD = timedelta(days=7)


@dataclass
class ModelReservation:
    """A reservation in the model."""

    place: int
    quantity: int
    status: Status = Status.PENDING
    is_overdue: bool = False
    version: int = 1
    note: str | None = None
    expires_at: datetime | None = None
    kinds: list[Kind] = field(default_factory=lambda: [Kind.CREATED])

    def is_overdue_hold(self) -> bool:
        return self.is_overdue and self.status is Status.PENDING


class Reservations(RuleBasedStateMachine):
    """Items, their stock, and everything that can happen to a reservation."""

    made = Bundle("made")

    def __init__(self, db: Db) -> None:
        super().__init__()
        self.db = db
        self.available: list[int] = []
        self.stock: list[int] = []
        self.reservations: dict[UUID, ModelReservation] = {}

    @initialize(stock=st.lists(st.integers(0, 8), min_size=ITEMS, max_size=ITEMS))
    def open(self, stock: list[int]) -> None:
        empty(self.db.kw["bind"])
        self.db = with_routes(self.db, ROUTES)
        self.items = [an_item(self.db, quantity=quantity) for quantity in stock]
        self.available, self.stock = list(stock), list(stock)

    @rule(target=made, wanted=st.lists(st.tuples(places, quantities), min_size=1, max_size=4))
    def reserve(self, wanted: list[tuple[int, int]]) -> Any:
        outcomes = reserve(self.db, *(a_request(self.items[place], quantity) for place, quantity in wanted))

        self._expire_what_was_taken_back({place for place, _ in wanted})
        expected = self._decide(wanted)
        assert [isinstance(outcome, Answered) for outcome in outcomes] == expected
        refused = [outcome for outcome in outcomes if isinstance(outcome, SoldOut)]
        assert len(refused) == expected.count(False)
        for (place, quantity), fits in zip(wanted, expected, strict=True):
            self.available[place] -= quantity if fits else 0
        return multiple(*self._new([one for one, fits in zip(wanted, expected, strict=True) if fits]))

    def _expire_what_was_taken_back(self, wanted: set[int]) -> None:
        """Expire in the model what has been expired for the requests: overdue holds of items that they name."""
        with self.db.begin() as session:
            expired = session.execute(select(table.c.id).where(table.c.status == Status.EXPIRED)).scalars().all()
        for one in (self.reservations[reservation_id] for reservation_id in expired):
            if one.status is not Status.EXPIRED:
                assert one.is_overdue_hold() and one.place in wanted
                self._set_status(one, Status.EXPIRED)

    def _decide(self, wanted: list[tuple[int, int]]) -> list[bool]:
        """Return which requests fit. One that overdue holds could satisfy is not refused."""
        remaining, decided = list(self.available), []
        for place, quantity in wanted:
            decided.append(quantity <= remaining[place])
            remaining[place] -= quantity if decided[-1] else 0
            assert decided[-1] or quantity > remaining[place] + self._overdue_units(place)
        return decided

    def _overdue_units(self, place: int) -> int:
        return sum(one.quantity for one in self.reservations.values() if one.place == place and one.is_overdue_hold())

    def _new(self, accepted: list[tuple[int, int]]) -> list[UUID]:
        with self.db.begin() as session:
            page = reservations.find(session, Filter(), limit=200)
            found = [one for one in page.reservations if one.id not in self.reservations]
        by_item = [item.id for item in self.items]
        new = [(by_item.index(one.item_id), one.quantity) for one in found]
        assert sorted(new) == sorted(accepted)
        self.reservations |= {
            one.id: ModelReservation(by_item.index(one.item_id), one.quantity, expires_at=one.expires_at)
            for one in found
        }
        return [one.id for one in found]

    @rule(asked=st.lists(st.tuples(made, st.sampled_from(ASKED)), min_size=1, max_size=3, unique_by=lambda one: one[0]))
    def change(self, asked: list[tuple[UUID, Status]]) -> None:
        with self.db.begin() as session:
            locked = {one.id: one for one in reservations.lock(session, [one for one, _ in asked])}
            answers = reservations.transition(session, [Change(of=locked[one], to=to) for one, to in asked], ROUTES)

        for (reservation_id, to), answer in zip(asked, answers, strict=True):
            self._check(self.reservations[reservation_id], to, answer)

    def _check(self, one: ModelReservation, to: Status, answer: Reservation | Refusal) -> None:
        if one.is_overdue_hold():
            assert isinstance(answer, HoldExpired)
            self._set_status(one, Status.EXPIRED)
        elif to in MAY.get(one.status, ()):
            assert isinstance(answer, Reservation) and answer.status is to
            self._set_status(one, to)
        else:
            assert isinstance(answer, HoldExpired if one.status is Status.EXPIRED else WrongStatus)

    @rule(one=made, lasting=st.sampled_from(LASTING))
    def extend(self, one: UUID, lasting: timedelta) -> None:
        with self.db.begin() as session:
            before = reservations.get(session, one)
            answer = reservations.change(session, one, Extension(lasting), routes=ROUTES)

        model = self.reservations[one]
        if model.is_overdue_hold():
            assert isinstance(answer, HoldExpired)
            self._set_status(model, Status.EXPIRED)
        elif model.status is not Status.PENDING:
            assert isinstance(answer, HoldExpired if model.status is Status.EXPIRED else WrongStatus)
        elif lasting > MAX_HOLD:
            assert isinstance(answer, HoldTooLong)
            assert answer.latest_expires_at == before.created_at + MAX_HOLD
        else:
            assert isinstance(answer, Reservation) and answer.expires_at and model.expires_at
            assert answer.expires_at >= model.expires_at
            if answer.expires_at > model.expires_at:
                assert answer.expires_at == answer.updated_at + lasting
                self._note(model, Kind.EXTENDED)
            model.expires_at = answer.expires_at

    @rule(one=made, note=st.sampled_from([None, "", "Late", "Zoë"]))
    def amend(self, one: UUID, note: str | None) -> None:
        with self.db.begin() as session:
            answer = reservations.change(session, one, Amendment({"note": note}), routes=ROUTES)

        model = self.reservations[one]
        if model.is_overdue_hold():
            assert isinstance(answer, HoldExpired)
            self._set_status(model, Status.EXPIRED)
        elif model.status is Status.EXPIRED:
            assert isinstance(answer, HoldExpired)
        elif model.note == note:
            assert isinstance(answer, Reservation)
        elif model.status not in HAS_NOT_ENDED:
            assert isinstance(answer, WrongStatus)
        else:
            assert isinstance(answer, Reservation) and answer.note == note
            model.note = note
            self._note(model, Kind.CHANGED)

    def _note(self, one: ModelReservation, kind: Kind) -> None:
        one.version += 1
        one.kinds.append(kind)

    def _set_status(self, one: ModelReservation, to: Status) -> None:
        one.status = to
        self._note(one, Kind.STATUS)
        self.available[one.place] += one.quantity if to in GIVES_BACK else 0

    @rule(one=made)
    def become_overdue(self, one: UUID) -> None:
        a_minute_ago = func.now() - timedelta(minutes=1)
        with self.db.begin() as session:
            session.execute(update(table).where(table.c.id == one).values(expires_at=a_minute_ago))
        self.reservations[one].is_overdue = True

    @rule(limit=st.integers(1, 3))
    def expire(self, limit: int) -> None:
        with self.db.begin() as session:
            expired = reservations.expire(session, limit, ROUTES)
            ended = session.execute(select(table.c.id).where(table.c.status == Status.EXPIRED)).scalars().all()

        overdue = [one for one in self.reservations.values() if one.is_overdue_hold()]
        assert expired == min(limit, len(overdue))
        new = [self.reservations[one] for one in ended if self.reservations[one].status is not Status.EXPIRED]
        assert len(new) == expired and all(one.is_overdue_hold() for one in new)
        for one in new:
            self._set_status(one, Status.EXPIRED)

    @rule(place=places, by=st.integers(-4, 4))
    def adjust_stock(self, place: int, by: int) -> None:
        fits = self.available[place] + by >= 0
        try:
            with self.db.begin() as session:
                items.amend(session, self.items[place].id, adjust_quantity_by=by)
        except InsufficientAvailableStock:
            assert not fits
            return
        assert fits
        self.available[place] += by
        self.stock[place] += by

    @invariant()
    def the_database_agrees_with_the_model(self) -> None:
        with self.db.begin() as session:
            violated = [finding for finding in invariants.examine(session) if finding.violations]
            stored = {one.id: (one.status, one.version, one.note) for one in session.execute(select(table))}
            noted = session.execute(select(history.c.reservation_id, history.c.kind).order_by(history.c.id)).all()
            counted = [(one.available_quantity, one.stock_quantity) for one in items.find(session, limit=10)]

        assert violated == []
        assert stored == {one: (model.status, model.version, model.note) for one, model in self.reservations.items()}
        for one, model in self.reservations.items():
            assert [kind for reservation_id, kind in noted if reservation_id == one] == model.kinds
        assert counted == list(zip(self.available, self.stock, strict=True))


@pytest.mark.slow
def test_whatever_happens_the_database_agrees_with_the_model(db: Db) -> None:
    class Here(Reservations):
        def __init__(self) -> None:
            super().__init__(db)

    run_state_machine_as_test(Here, settings=MODEL)
