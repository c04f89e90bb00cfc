"""Calendars beside a model, whatever happens to their reservations: the same is accepted, and nothing is oversold."""

from contextlib import nullcontext
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
from sqlalchemy import select

from domain import calendars, reservations
from domain.calendars import Period
from domain.calendars.table import occupancies
from domain.idempotency import Answered
from domain.items import Item
from domain.reservations import Claim, Deferred, Extension, Reschedule, Reservation, Reserve
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations as table
from domain.runtime.errors import CapacityInUse, HoldExpired, Invalid, NotFree, Refusal, WrongStatus
from tests.conftest import empty
from tests.domain.calendars.calendar_model import (
    ASKED,
    CALENDARS,
    FREE,
    MAY,
    Asked,
    Minutes,
    Model,
    ModelCalendar,
    ModelReservation,
    Wanted,
    asked,
    minutes,
    model_calendars,
    period,
    quantities,
)
from tests.support.builders import ROUTES, Db, a_calendar, a_request, let_lapse, reserve, stored_as, with_routes
from tests.support.hypothesis_settings import MODEL
from tests.support.invariants import violations

#: The columns of an occupancy that say what is taken.
TAKEN = "reservation_id", "position", "item_id", "units", "blocked_from", "blocked_until", "held_until"


class Calendars(RuleBasedStateMachine):
    """Calendars, and everything that can happen to their reservations."""

    made = Bundle("made")

    def __init__(self, db: Db) -> None:
        super().__init__()
        self.db = db
        self.items: list[Item] = []
        self.model = Model()

    @initialize(
        target=made,
        settings=st.lists(model_calendars, min_size=CALENDARS, max_size=CALENDARS),
        several=st.lists(asked, min_size=2, max_size=6),
    )
    def open(self, settings: list[ModelCalendar], several: list[Asked]) -> Any:
        empty(self.db.kw["bind"])
        self.db = with_routes(self.db, ROUTES)
        self.model = Model(settings)
        self.items = [a_calendar(self.db, one.capacity, **_buffers(one)) for one in settings]
        return self._reserve(several)

    @rule(target=made, several=st.lists(asked, min_size=1, max_size=4), later=st.booleans())
    def reserve(self, several: list[Asked], later: bool) -> Any:
        if later:
            self._let_short_holds_lapse()
        return self._reserve(several)

    def _reserve(self, several: list[Asked]) -> Any:
        outcomes = reserve(self.db, *map(self._request, several))

        expired = self._note_what_expired()
        assert all(any(self.model.is_in_the_way(of, one.wanted, one.during) for one in several) for of in expired)
        made = [self._note(one, outcome) for one, outcome in zip(several, outcomes, strict=True)]
        assert len(several) > 1 or not isinstance(outcomes[0], Deferred)
        return multiple(*(one for one in made if one is not None))

    def _request(self, one: Asked) -> Reserve:
        during = period(one.during)
        return a_request(
            self.items[0],
            lines=tuple(Claim(self.items[place].id, quantity, during) for place, quantity in one.wanted.items()),
            status=one.status,
            hold_for=one.hold_for,
            render=lambda made: str(made.id),
        )

    def _note_what_expired(self) -> list[ModelReservation]:
        """Expire in the model what has been expired: only lapsed holds may be."""
        stored = stored_as(self.db, Status.EXPIRED)
        expired = [
            one for key, one in self.model.reservations.items() if key in stored and one.status is not Status.EXPIRED
        ]
        assert all(one.is_lapsed() for one in expired)
        for one in expired:
            one.status = Status.EXPIRED
        return expired

    def _note(self, one: Asked, outcome: object) -> UUID | None:
        """Check the answer to a request, and take its time in the model if it was accepted."""
        if any(quantity > self.model.calendars[place].capacity for place, quantity in one.wanted.items()):
            assert isinstance(outcome, Invalid) and outcome.field == "quantity"
            return None
        if self.model.too_small(one.wanted, one.during) is None:
            assert isinstance(outcome, Answered), outcome
            return self.model.add(UUID(outcome.text), one)
        refused = self.model.too_small(one.wanted, one.during, without_lapsed=True)
        if refused is None:
            assert isinstance(outcome, Deferred), outcome
        else:
            free = self.model.free(refused, one.during, without_lapsed=True)
            self._check_the_refusal(outcome, refused, one.wanted[refused], one.during, free)
        return None

    def _check_the_refusal(self, outcome: object, place: int, asked: int, during: Minutes, free: int) -> None:
        assert isinstance(outcome, NotFree), outcome
        named = (outcome.sku, outcome.asked, outcome.available_quantity, Period(outcome.start, outcome.end))
        assert named == (self.items[place].sku, asked, free, period(during))

    @rule(key=made, to=st.sampled_from(ASKED))
    def change_status(self, key: UUID, to: Status) -> None:
        outcome = self._change(key, to)

        one = self.model.reservations[key]
        if one.status is to:
            assert isinstance(outcome, Reservation)
        elif one.is_lapsed() or one.status is Status.EXPIRED:
            assert isinstance(outcome, HoldExpired)
            one.status = Status.EXPIRED
        elif to in MAY.get(one.status, ()):
            assert isinstance(outcome, Reservation)
            one.status = to
        else:
            assert isinstance(outcome, WrongStatus)

    @rule(key=made, hours=st.integers(1, 24))
    def extend(self, key: UUID, hours: int) -> None:
        outcome = self._change(key, Extension(timedelta(hours=hours)))

        one = self.model.reservations[key]
        if one.is_lapsed() or one.status is Status.EXPIRED:
            assert isinstance(outcome, HoldExpired)
            one.status = Status.EXPIRED
        else:
            assert isinstance(outcome, Reservation if one.status is Status.PENDING else WrongStatus)

    @rule(key=made, during=st.none() | minutes, quantity=st.none() | quantities, later=st.booleans())
    def reschedule(self, key: UUID, during: Minutes | None, quantity: int | None, later: bool) -> None:
        if later:
            self._let_short_holds_lapse()
        outcome = self._change(key, Reschedule(period(during) if during else None, quantity))

        one = self.model.reservations[key]
        expired = self._note_what_expired()
        if one in expired or one.status is Status.EXPIRED:
            assert isinstance(outcome, HoldExpired) and expired in ([], [one])
            return
        after, new_time = _with_first(one.wanted, quantity), during or one.during
        assert all(self.model.is_in_the_way(other, after, new_time) for other in expired)
        if (after, new_time) == (one.wanted, one.during):
            assert isinstance(outcome, Reservation)
        elif one.status not in MAY:
            assert isinstance(outcome, WrongStatus)
        elif self._is_forbidden(one.wanted, after):
            assert isinstance(outcome, Invalid) and outcome.field == "quantity"
        elif one.contains(after, new_time):
            assert isinstance(outcome, Reservation) and expired == []
            one.shorten(after, new_time)
        elif (place := self.model.too_small(after, new_time, one)) is None:
            assert isinstance(outcome, Reservation), outcome
            one.wanted, one.during, one.blocked = after, new_time, self.model.blocked(after, new_time)
        else:
            self._check_the_refusal(outcome, place, after[place], new_time, self.model.free(place, new_time, one))

    def _is_forbidden(self, before: Wanted, after: Wanted) -> bool:
        """Return whether a quantity is more than the capacity, or one of several quantities is to change."""
        capacities = self.model.calendars
        return (len(after) > 1 and before != after) or any(
            quantity > capacities[place].capacity for place, quantity in after.items()
        )

    def _change(self, key: UUID, to: reservations.Wanted) -> Reservation | Refusal:
        with self.db.begin() as session:
            return reservations.change(session, key, to, routes=ROUTES)

    @rule(key=made)
    def lapse(self, key: UUID) -> None:
        let_lapse(self.db, key)
        self.model.reservations[key].is_overdue = True

    def _let_short_holds_lapse(self) -> None:
        for key, one in self.model.reservations.items():
            if one.is_short and one.status is Status.PENDING and not one.is_overdue:
                self.lapse(key)

    @rule()
    def expire(self) -> None:
        with self.db.begin() as session:
            expired = reservations.expire(session, 500, ROUTES)

        lapsed = [one for one in self.model.reservations.values() if one.is_lapsed()]
        assert expired == len(lapsed)
        for one in lapsed:
            one.status = Status.EXPIRED

    @rule(place=st.integers(0, CALENDARS - 1), capacity=st.integers(1, 5))
    def change_capacity(self, place: int, capacity: int) -> None:
        calendar, in_use = self.model.calendars[place], max(self.model.used(place))
        refused = pytest.raises(CapacityInUse) if in_use > capacity else nullcontext()

        with self.db.begin() as session, refused as error:
            calendar.capacity = calendars.amend(session, self.items[place].id, capacity=capacity).capacity or 0

        assert calendar.capacity == capacity if error is None else error.value.in_use == in_use

    @rule(place=st.integers(0, CALENDARS - 1), before=st.integers(0, 3), after=st.integers(0, 3))
    def change_buffers(self, place: int, before: int, after: int) -> None:
        calendar = self.model.calendars[place]
        calendar.before, calendar.after = before, after
        with self.db.begin() as session:
            calendars.amend(session, self.items[place].id, **_buffers(calendar))

    @invariant()
    def no_minute_is_above_the_capacity(self) -> None:
        for place, calendar in enumerate(self.model.calendars):
            assert max(self.model.used(place)) <= calendar.capacity

    @invariant()
    def the_database_agrees_with_the_model(self) -> None:
        with self.db.begin() as session:
            stored = {one.id: one for one in session.execute(select(table))}
            taken = set(map(tuple, session.execute(select(*occupancies.c[TAKEN]))))

        seen = {key: (row.status, Period(row.starts_at, row.ends_at)) for key, row in stored.items()}
        assert seen == {key: (one.status, period(one.during)) for key, one in self.model.reservations.items()}
        assert taken == {
            (key, position, self.items[place].id, quantity, *self._times(one, place, stored[key].expires_at))
            for key, one in self.model.reservations.items()
            for position, (place, quantity) in enumerate(one.wanted.items(), start=1)
            if one.status not in FREE
        }

    def _times(self, one: ModelReservation, place: int, expires_at: datetime | None) -> tuple[datetime | None, ...]:
        blocked = period(one.blocked[place])
        return blocked.start, blocked.end, expires_at if one.status is Status.PENDING else None

    def teardown(self) -> None:
        assert violations(self.db) == {}


def _buffers(of: ModelCalendar) -> dict[str, Any]:
    return {"buffer_before_seconds": of.before * 60, "buffer_after_seconds": of.after * 60}


def _with_first(wanted: Wanted, quantity: int | None) -> Wanted:
    """Return what is wanted, with another quantity of the first calendar if one is given."""
    first = next(iter(wanted))
    return wanted | {first: quantity or wanted[first]}


@pytest.mark.slow
def test_whatever_happens_to_calendars_the_database_agrees_with_the_model(db: Db) -> None:
    class Here(Calendars):
        def __init__(self) -> None:
            super().__init__(db)

    run_state_machine_as_test(Here, settings=MODEL)
