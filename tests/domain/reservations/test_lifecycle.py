"""The lifecycle: what may become of a reservation, and what a change of status brings with it."""

from collections.abc import Sequence
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, delete, func, select, update

from domain import reservations
from domain.items import Item
from domain import items
from domain.outbox.table import outbox
from domain.reservations import Change, Reservation
from domain.reservations.lifecycle import CONSUMING, HOLDING, RELEASING, TRANSITIONS, Status, check
from domain.reservations.table import history
from domain.reservations.table import reservations as table
from domain.runtime.database import now
from domain.runtime.errors import HoldExpired, StalePrecondition, StaleVersion, UnknownReservation, WrongStatus
from tests.support.builders import Db, a_hold, an_item, an_overdue_hold, available

#: DESIGN §3, written down a second time.
ALLOWED = {
    Status.PENDING: {Status.CONFIRMED, Status.REJECTED, Status.CANCELLED, Status.EXPIRED},
    Status.CONFIRMED: {Status.CHECKED_IN, Status.COMPLETED, Status.CANCELLED, Status.NO_SHOW},
    Status.CHECKED_IN: {Status.COMPLETED, Status.CANCELLED},
    Status.BLOCKED: {Status.CANCELLED},
}
PAIRS = [(current, to) for current, to in product(Status, Status)]
LEGAL = [(current, to) for current, to in PAIRS if to in ALLOWED.get(current, ())]
ILLEGAL = [pair for pair in PAIRS if pair not in LEGAL]

OWN_EVENTS = {
    Status.CONFIRMED: ["booking.confirmed"],
    Status.CANCELLED: ["booking.cancelled"],
    Status.EXPIRED: ["booking.expired"],
    Status.CHECKED_IN: ["booking.checked_in"],
    Status.COMPLETED: ["booking.completed"],
    Status.REJECTED: [],
    Status.NO_SHOW: [],
}

TIMESTAMPS = {
    Status.CONFIRMED: "confirmed_at",
    Status.CHECKED_IN: "checked_in_at",
    Status.COMPLETED: "completed_at",
    Status.CANCELLED: "cancelled_at",
}


def a_reservation(db: Db, status: Status, quantity: int = 3) -> Reservation:
    """A reservation of its own item, of which ten were there, that has somehow come to that status."""
    hold = a_hold(db, an_item(db, quantity=10), quantity)
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == hold.id).values(status=status))
        session.execute(delete(outbox))
        session.execute(delete(history))
        return reservations.get(session, hold.id)


def changed(db: Db, reservation_id: UUID, to: Status, **said: Any) -> object:
    with db.begin() as session:
        return reservations.change(session, reservation_id, to, **said)


def stored(db: Db, reservation_id: UUID) -> Row[Any]:
    with db.begin() as session:
        return session.execute(select(table).where(table.c.id == reservation_id)).one()


def item_of(db: Db, reservation: Reservation) -> Item:
    with db.begin() as session:
        return items.get(session, reservation.item_id)


def told(db: Db) -> Sequence[Row[Any]]:
    """What was recorded for the outside world."""
    with db.begin() as session:
        return session.execute(select(outbox).order_by(outbox.c.id)).all()


def steps(db: Db) -> Sequence[tuple[Any, ...]]:
    """The history: from, to, by whom and why."""
    with db.begin() as session:
        columns = history.c.from_status, history.c.to_status, history.c.changed_by, history.c.reason
        return [tuple(row) for row in session.execute(select(*columns).order_by(history.c.id))]


@pytest.mark.parametrize(("current", "to"), LEGAL)
def test_the_table_allows_what_the_design_says(current: Status, to: Status) -> None:
    check(current, to)


@pytest.mark.parametrize(("current", "to"), ILLEGAL)
def test_the_table_allows_nothing_else(current: Status, to: Status) -> None:
    with pytest.raises(WrongStatus) as refused:
        check(current, to)

    assert (refused.value.status, refused.value.to) == (current, to)


def test_every_status_either_holds_or_consumes_or_releases() -> None:
    assert set(Status) == HOLDING | CONSUMING | RELEASING
    assert len(HOLDING) + len(CONSUMING) + len(RELEASING) == len(Status)
    assert set(TRANSITIONS) == HOLDING


@pytest.mark.parametrize(("current", "to"), LEGAL)
def test_a_change_writes_version_timestamp_history_and_events_and_gives_back_what_was_held(
    db: Db, current: Status, to: Status
) -> None:
    before = a_reservation(db, current, quantity=3)

    after = changed(db, before.id, to, reason="because", changed_by="someone")

    row = stored(db, before.id)
    assert isinstance(after, Reservation)
    assert (after.status, after.version, after.updated_at) == (row.status, row.version, row.updated_at)
    assert (row.status, row.version) == (to, before.version + 1)
    assert row.updated_at > before.updated_at
    reached = {name: getattr(row, name) for name in TIMESTAMPS.values() if getattr(row, name)}
    assert reached == ({TIMESTAMPS[to]: row.updated_at} if to in TIMESTAMPS else {})
    assert steps(db) == [(current, to, "someone", "because")]
    assert [one.type for one in told(db)] == ["booking.status_changed", *OWN_EVENTS[to]]
    gives_back = to in {Status.CANCELLED, Status.REJECTED, Status.EXPIRED, Status.NO_SHOW}
    assert available(db, item_of(db, before)) == (10 if gives_back else 7)


@pytest.mark.parametrize(("current", "to"), ILLEGAL)
def test_what_the_table_forbids_changes_nothing(db: Db, current: Status, to: Status) -> None:
    before = a_reservation(db, current)
    row = stored(db, before.id)

    refused = changed(db, before.id, to)

    assert isinstance(refused, WrongStatus) and (refused.status, refused.to) == (current, to)
    assert stored(db, before.id) == row
    assert (steps(db), told(db)) == ([], [])
    assert available(db, item_of(db, before)) == 7


def test_an_event_tells_how_things_are_now_and_where_they_came_from(db: Db) -> None:
    hold = a_reservation(db, Status.PENDING)

    changed(db, hold.id, Status.CANCELLED, reason="changed my mind", changed_by="guest")

    status_changed, cancelled = told(db)
    assert status_changed.payload == cancelled.payload
    assert status_changed.payload == {
        "booking_id": str(hold.id),
        "item_id": hold.item_id,
        "sku": hold.sku,
        "quantity": 3,
        "status": "CANCELLED",
        "version": 2,
        "guest_id": None,
        "expires_at": hold.expires_at and hold.expires_at.isoformat(),
        "from_status": "PENDING",
        "to_status": "CANCELLED",
        "reason": "changed my mind",
    }
    assert {one.aggregate_id for one in told(db)} == {hold.id}
    assert status_changed.event_id != cancelled.event_id


def test_a_cancellation_notes_who_and_why(db: Db) -> None:
    hold = a_reservation(db, Status.PENDING)

    changed(db, hold.id, Status.CANCELLED, reason="rain", changed_by="guest")

    row = stored(db, hold.id)
    assert (row.cancellation_reason, row.cancelled_by) == ("rain", "guest")


def test_what_nobody_asked_for_was_done_by_the_system(db: Db) -> None:
    hold = a_reservation(db, Status.PENDING)

    changed(db, hold.id, Status.REJECTED)

    assert steps(db) == [("PENDING", "REJECTED", "system", None)]


@pytest.mark.parametrize("to", [Status.CONFIRMED, Status.CANCELLED, Status.REJECTED, Status.EXPIRED])
def test_an_overdue_hold_expires_whatever_is_asked_of_it(db: Db, to: Status) -> None:
    item = an_item(db, quantity=10)
    hold = an_overdue_hold(db, item, quantity=4)

    outcome = changed(db, hold.id, to, reason="too late", changed_by="guest")

    row = stored(db, hold.id)
    assert (row.status, row.version) == (Status.EXPIRED, 2)
    assert (row.confirmed_at, row.cancelled_at, row.cancellation_reason, row.cancelled_by) == (None,) * 4
    assert available(db, item) == 10
    if to is not Status.EXPIRED:
        assert isinstance(outcome, HoldExpired)
        assert (outcome.reservation_id, outcome.expired_at) == (hold.id, hold.expires_at)
        assert steps(db)[-1] == ("PENDING", "EXPIRED", "system", "the hold was not confirmed in time")
    assert [one.type for one in told(db)][2:] == ["booking.status_changed", "booking.expired"]


def test_a_confirmed_reservation_does_not_lapse(db: Db) -> None:
    hold = an_overdue_hold(db, an_item(db))
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == hold.id).values(status=Status.CONFIRMED))

    outcome = changed(db, hold.id, Status.CHECKED_IN)

    assert isinstance(outcome, Reservation) and outcome.status is Status.CHECKED_IN


def test_many_are_changed_at_once_and_each_gets_its_own_answer(db: Db) -> None:
    item, other = an_item(db, quantity=10), an_item(db, quantity=10)
    first, second = a_hold(db, item, quantity=2), a_hold(db, other, quantity=3)
    lapsed, done = an_overdue_hold(db, item, quantity=4), a_hold(db, item, quantity=1)
    changed(db, done.id, Status.CANCELLED)

    with db.begin() as session:
        held = {one.id: one for one in reservations.lock(session, [first.id, second.id, lapsed.id, done.id])}
        answers = reservations.transition(
            session,
            [
                Change(of=held[first.id], to=Status.CONFIRMED),
                Change(of=held[lapsed.id], to=Status.CONFIRMED),
                Change(of=held[second.id], to=Status.CANCELLED, reason="no", changed_by="guest"),
                Change(of=held[done.id], to=Status.CONFIRMED),
            ],
        )

    assert [type(answer) for answer in answers] == [Reservation, HoldExpired, Reservation, WrongStatus]
    ids = [first.id, lapsed.id, second.id, done.id]
    assert [stored(db, one).status for one in ids] == ["CONFIRMED", "EXPIRED", "CANCELLED", "CANCELLED"]
    assert (stored(db, second.id).cancellation_reason, stored(db, done.id).cancellation_reason) == ("no", None)
    assert (available(db, item), available(db, other)) == (8, 10)


def test_reservations_are_locked_in_order_of_id_and_unknown_ones_left_out(db: Db) -> None:
    item = an_item(db)
    ids = [a_hold(db, item).id for _ in range(5)]

    with db.begin() as session:
        held = reservations.lock(session, [*reversed(ids), uuid4()])

    assert [one.id for one in held] == sorted(ids)


def test_a_change_of_an_unknown_reservation_is_refused(db: Db) -> None:
    with pytest.raises(UnknownReservation):
        changed(db, uuid4(), Status.CONFIRMED)


@pytest.mark.parametrize(("said", "error"), [("if_match", StalePrecondition), ("expected_version", StaleVersion)])
def test_a_version_that_is_given_must_be_the_current_one(db: Db, said: str, error: type[Exception]) -> None:
    hold = a_hold(db, an_item(db))

    with pytest.raises(error) as refused:
        changed(db, hold.id, Status.CONFIRMED, **{said: 7})
    fine = changed(db, hold.id, Status.CONFIRMED, **{said: 1})

    assert vars(refused.value) == {"expected_version": 7, "current_version": 1}
    assert isinstance(fine, Reservation) and fine.version == 2


def test_a_hold_ends_at_the_instant_it_says_by_the_clock_of_the_database(db: Db) -> None:
    """A transaction that began before the end of a hold can't confirm it after its end."""
    hold = a_hold(db, an_item(db))
    with db.begin() as session:
        now(session)  # from here on the transaction has an old `now()`
        with db.begin() as other:
            other.execute(update(table).where(table.c.id == hold.id).values(expires_at=func.clock_timestamp()))
        outcome = reservations.change(session, hold.id, Status.CONFIRMED)

    assert isinstance(outcome, HoldExpired)
