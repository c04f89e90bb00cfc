"""Changing a status: its version, its timestamp, its history, its events and its stock change together."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, delete, func, select, update

from domain import items, reservations
from domain.items import Item
from domain.outbox.table import outbox
from domain.reservations import Change, Reservation
from domain.reservations.lifecycle import Status
from domain.reservations.table import history
from domain.reservations.table import reservations as table
from domain.runtime.database import now
from domain.runtime.errors import HoldExpired, Invalid, StaleVersion, UnknownReservation, WrongStatus
from tests.domain.reservations.test_lifecycle import ILLEGAL, LEGAL
from tests.support.builders import Db, a_hold, an_item, an_overdue_hold, available, routes_of
from tests.support.outbox import rows

OWN_EVENTS = {
    Status.CONFIRMED: ["booking.confirmed"],
    Status.CANCELLED: ["booking.cancelled"],
    Status.EXPIRED: ["booking.expired"],
    Status.CHECKED_IN: ["booking.checked_in"],
    Status.COMPLETED: ["booking.completed"],
    Status.REJECTED: ["booking.rejected"],
    Status.NO_SHOW: ["booking.no_show"],
}

TIMESTAMPS = {
    Status.CONFIRMED: "confirmed_at",
    Status.CHECKED_IN: "checked_in_at",
    Status.COMPLETED: "completed_at",
    Status.CANCELLED: "cancelled_at",
    Status.REJECTED: "rejected_at",
}


def a_reservation(db: Db, status: Status, quantity: int = 3) -> Reservation:
    """A reservation of this status, of an item with ten units. Its history and its events are empty."""
    hold = a_hold(db, an_item(db, quantity=10), quantity)
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == hold.id).values(status=status))
        session.execute(delete(outbox))
        session.execute(delete(history))
        return reservations.get(session, hold.id)


def changed(db: Db, reservation_id: UUID, to: Status, **options: Any) -> object:
    with db.begin() as session:
        return reservations.change(session, reservation_id, to, routes=routes_of(db), **options)


def stored(db: Db, reservation_id: UUID) -> Row[Any]:
    with db.begin() as session:
        return session.execute(select(table).where(table.c.id == reservation_id)).one()


def item_of(db: Db, reservation: Reservation) -> Item:
    with db.begin() as session:
        return items.get(session, reservation.item_id)


def steps(db: Db) -> Sequence[tuple[Any, ...]]:
    """Return the history: from which status to which, by whom and why."""
    with db.begin() as session:
        columns = history.c.from_status, history.c.to_status, history.c.changed_by, history.c.reason
        return [tuple(row) for row in session.execute(select(*columns).order_by(history.c.id))]


@pytest.mark.parametrize(("current", "to"), LEGAL)
def test_a_change_writes_version_timestamp_history_and_events_and_gives_stock_back(
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
    with db.begin() as session:
        assert reservations.get(session, before.id) == after
        assert session.execute(select(history.c.kind, history.c.details)).all() == [("status", None)]
    assert [one.type for one in rows(db)] == ["booking.status_changed", *OWN_EVENTS[to]]
    gives_back = to in {Status.CANCELLED, Status.REJECTED, Status.EXPIRED, Status.NO_SHOW}
    assert available(db, item_of(db, before)) == (10 if gives_back else 7)


def is_lapsed(current: Status) -> bool:
    return current is Status.EXPIRED


@pytest.mark.parametrize(
    ("current", "to"), [(current, to) for current, to in ILLEGAL if current is not to and not is_lapsed(current)]
)
def test_a_change_that_the_table_does_not_allow_changes_nothing(db: Db, current: Status, to: Status) -> None:
    before = a_reservation(db, current)
    row = stored(db, before.id)

    refused = changed(db, before.id, to)

    assert isinstance(refused, WrongStatus) and (refused.status, refused.to) == (current, to)
    assert stored(db, before.id) == row
    assert (steps(db), rows(db)) == ([], [])
    assert available(db, item_of(db, before)) == 7


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("expected_version", [None, 1, 7])
def test_asking_for_the_status_that_a_reservation_has_succeeds_and_changes_nothing(
    db: Db, status: Status, expected_version: int | None
) -> None:
    before = a_reservation(db, status)
    row = stored(db, before.id)

    def refuse(_: Reservation) -> None:
        raise Invalid("version", "it is stale")

    answer = changed(
        db, before.id, status, reason="again", changed_by="x", precondition=refuse, expected_version=expected_version
    )

    assert answer == before
    assert stored(db, before.id) == row
    assert (steps(db), rows(db)) == ([], [])
    assert available(db, item_of(db, before)) == 7


def test_an_event_contains_the_reservation_as_it_is_now_and_its_former_status(db: Db) -> None:
    hold = a_reservation(db, Status.PENDING)

    changed(db, hold.id, Status.CANCELLED, reason="changed my mind", changed_by="guest")

    status_changed, cancelled = rows(db)
    assert status_changed.payload == cancelled.payload
    assert status_changed.payload == {
        "booking_id": str(hold.id),
        "item_id": hold.item_id,
        "sku": hold.sku,
        "quantity": 3,
        "lines": [{"item_id": hold.item_id, "sku": hold.sku, "quantity": 3}],
        "status": "CANCELLED",
        "version": 2,
        "guest_id": None,
        "expires_at": hold.expires_at and hold.expires_at.isoformat(),
        "start": None,
        "end": None,
        "from_status": "PENDING",
        "to_status": "CANCELLED",
        "reason": "changed my mind",
    }
    assert {one.aggregate_id for one in rows(db)} == {hold.id}
    assert status_changed.event_id != cancelled.event_id


@pytest.mark.parametrize("to", [Status.CANCELLED, Status.REJECTED])
def test_a_cancellation_and_a_rejection_store_by_whom_and_why(db: Db, to: Status) -> None:
    hold = a_reservation(db, Status.PENDING)

    after = changed(db, hold.id, to, reason="rain", changed_by="guest")

    row = stored(db, hold.id)
    assert isinstance(after, Reservation) and after.cancellation_reason == "rain"
    assert (row.cancellation_reason, row.cancelled_by) == ("rain", "guest")


def test_a_change_that_nobody_asked_for_is_made_by_the_system(db: Db) -> None:
    hold = a_reservation(db, Status.PENDING)

    changed(db, hold.id, Status.REJECTED)

    assert steps(db) == [("PENDING", "REJECTED", "system", None)]


@pytest.mark.parametrize("to", [Status.CONFIRMED, Status.CANCELLED, Status.REJECTED, Status.EXPIRED])
def test_an_overdue_hold_expires_whatever_change_is_asked_for(db: Db, to: Status) -> None:
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
    assert [one.type for one in rows(db)][2:] == ["booking.status_changed", "booking.expired"]


@pytest.mark.parametrize("seen_by_maintenance", [False, True])
@pytest.mark.parametrize("to", sorted(set(Status) - {Status.EXPIRED, Status.PENDING}))
@pytest.mark.parametrize("version", [None, 1, 2, 7])
def test_every_change_of_a_hold_that_has_lapsed_is_refused_in_the_same_way(
    db: Db, seen_by_maintenance: bool, to: Status, version: int | None
) -> None:
    hold = an_overdue_hold(db, an_item(db, quantity=10), quantity=4)
    if seen_by_maintenance:
        with db.begin() as session:
            assert reservations.expire(session, 10, routes_of(db)) == 1

    def refuse(_: Reservation) -> None:
        raise Invalid("version", "it is stale")

    outcome = changed(db, hold.id, to, expected_version=version, precondition=version and refuse)

    assert isinstance(outcome, HoldExpired)
    assert (outcome.reservation_id, outcome.expired_at) == (hold.id, hold.expires_at)
    assert (stored(db, hold.id).status, stored(db, hold.id).version) == (Status.EXPIRED, 2)
    assert [one.type for one in rows(db)][2:] == ["booking.status_changed", "booking.expired"]


def test_a_confirmed_reservation_does_not_expire(db: Db) -> None:
    hold = an_overdue_hold(db, an_item(db))
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == hold.id).values(status=Status.CONFIRMED))

    outcome = changed(db, hold.id, Status.CHECKED_IN)

    assert isinstance(outcome, Reservation) and outcome.status is Status.CHECKED_IN


def test_many_reservations_are_changed_together_and_each_gets_its_own_answer(db: Db) -> None:
    item, other = an_item(db, quantity=10), an_item(db, quantity=10)
    first, second = a_hold(db, item, quantity=2), a_hold(db, other, quantity=3)
    overdue, done = an_overdue_hold(db, item, quantity=4), a_hold(db, item, quantity=1)
    changed(db, done.id, Status.CANCELLED)

    with db.begin() as session:
        locked = {one.id: one for one in reservations.lock(session, [first.id, second.id, overdue.id, done.id])}
        answers = reservations.transition(
            session,
            [
                Change(of=locked[first.id], to=Status.CONFIRMED),
                Change(of=locked[overdue.id], to=Status.CONFIRMED),
                Change(of=locked[second.id], to=Status.CANCELLED, reason="no", changed_by="guest"),
                Change(of=locked[done.id], to=Status.CONFIRMED),
            ],
            routes_of(db),
        )

    assert [type(answer) for answer in answers] == [Reservation, HoldExpired, Reservation, WrongStatus]
    ids = [first.id, overdue.id, second.id, done.id]
    assert [stored(db, one).status for one in ids] == ["CONFIRMED", "EXPIRED", "CANCELLED", "CANCELLED"]
    assert (stored(db, second.id).cancellation_reason, stored(db, done.id).cancellation_reason) == ("no", None)
    assert (available(db, item), available(db, other)) == (8, 10)


def test_reservations_are_locked_in_order_of_id_and_unknown_ones_are_left_out(db: Db) -> None:
    item = an_item(db)
    ids = [a_hold(db, item).id for _ in range(5)]

    with db.begin() as session:
        locked = reservations.lock(session, [*reversed(ids), uuid4()])

    assert [one.id for one in locked] == sorted(ids)


def test_a_change_of_an_unknown_reservation_is_refused(db: Db) -> None:
    with pytest.raises(UnknownReservation):
        changed(db, uuid4(), Status.CONFIRMED)


def test_a_version_that_is_expected_must_be_the_current_one(db: Db) -> None:
    hold = a_hold(db, an_item(db))

    with pytest.raises(StaleVersion) as refused:
        changed(db, hold.id, Status.CONFIRMED, expected_version=7)
    accepted = changed(db, hold.id, Status.CONFIRMED, expected_version=1)

    assert vars(refused.value) == {"expected_version": 7, "current_version": 1}
    assert isinstance(accepted, Reservation) and accepted.version == 2


def test_a_precondition_sees_the_locked_reservation_and_may_refuse_the_change(db: Db) -> None:
    hold = a_hold(db, an_item(db))
    seen = []

    def refuse(one: Reservation) -> None:
        seen.append(one)
        raise Invalid("version", "it is stale")

    with pytest.raises(Invalid):
        changed(db, hold.id, Status.CONFIRMED, precondition=refuse)

    assert seen == [hold]
    assert stored(db, hold.id).status == Status.PENDING


def test_a_hold_ends_at_its_instant_by_the_clock_of_the_database(db: Db) -> None:
    """A transaction that began before the end of a hold can't confirm it after its end."""
    hold = a_hold(db, an_item(db))
    with db.begin() as session:
        now(session)  # from here on the transaction has an old `now()`
        with db.begin() as other:
            other.execute(update(table).where(table.c.id == hold.id).values(expires_at=func.clock_timestamp()))
        outcome = reservations.change(session, hold.id, Status.CONFIRMED, routes=routes_of(db))

    assert isinstance(outcome, HoldExpired)
