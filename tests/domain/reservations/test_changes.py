"""Extending holds and amending reservations: the same lock, overdue check, version, history and events as a status."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

from domain import reservations
from domain.outbox.table import outbox
from domain.reservations import Amendment, Change, Claim, Extension, Reschedule, Reservation, Wanted
from domain.reservations.lifecycle import TRANSITIONS, Status
from domain.reservations.table import history, reservation_lines
from domain.reservations.table import reservations as table
from domain.runtime.errors import HoldExpired, HoldTooLong, Invalid, SoldOut, StaleVersion, WrongStatus
from tests.support.builders import (
    ROUTES,
    Db,
    a_basket,
    a_hold,
    a_request,
    an_item,
    an_overdue_hold,
    available,
    let_lapse,
    reserve,
    routes_of,
)
from tests.support.invariants import violations
from tests.support.outbox import rows

HOUR = timedelta(hours=1)

#: A change of each kind that every hold allows.
CHANGES: list[Wanted] = [Extension(HOUR), Amendment({"note": "Late"})]


def changed(db: Db, one: Reservation, wanted: Wanted, **options: Any) -> object:
    with db.begin() as session:
        return reservations.change(session, one.id, wanted, routes=routes_of(db), **options)


def a_reservation(db: Db, status: Status) -> Reservation:
    """A reservation of this status, whatever led to it. Its history and its events are empty."""
    hold = a_hold(db, an_item(db))
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == hold.id).values(status=status))
        session.execute(delete(outbox))
        session.execute(delete(history))
        return reservations.get(session, hold.id)


def read(db: Db, one: Reservation) -> Reservation:
    with db.begin() as session:
        return reservations.get(session, one.id)


def steps(db: Db) -> Sequence[tuple[Any, ...]]:
    with db.begin() as session:
        columns = history.c["kind", "from_status", "to_status", "changed_by", "details"]
        return [tuple(row) for row in session.execute(select(*columns).order_by(history.c.id))]


def test_an_extended_hold_lasts_from_now_on_and_notes_that_everywhere(db: Db) -> None:
    hold = a_reservation(db, Status.PENDING)

    extended = changed(db, hold, Extension(HOUR), changed_by="shop", headers={"correlation_id": "r-1"})

    assert isinstance(extended, Reservation) and extended == read(db, hold)
    assert (extended.status, extended.version) == (Status.PENDING, 2)
    assert extended.updated_at > hold.updated_at and extended.created_at == hold.created_at
    assert extended.expires_at == extended.updated_at + HOUR
    assert hold.expires_at
    times = {"from": hold.expires_at.isoformat(), "to": extended.expires_at.isoformat()}
    assert steps(db) == [("extended", "PENDING", "PENDING", "shop", {"expires_at": times})]
    (event,) = rows(db)
    assert (event.type, event.headers) == ("booking.extended", {"correlation_id": "r-1"})
    facts = {"status": "PENDING", "version": 2, "expires_at": times["to"], "previous_expires_at": times["from"]}
    assert facts.items() <= event.payload.items()


@pytest.mark.parametrize("status", [Status.PENDING, Status.CONFIRMED, Status.CHECKED_IN, Status.BLOCKED])
@pytest.mark.parametrize("note", ["Late", "", None])
def test_a_note_is_changed_until_a_reservation_ends(db: Db, status: Status, note: str | None) -> None:
    before = a_reservation(db, status)
    with db.begin() as session:
        session.execute(update(table).values(note="Early"))

    after = changed(db, before, Amendment({"note": note}), changed_by="desk")

    assert isinstance(after, Reservation) and after == read(db, before)
    assert (after.note, after.status, after.version, after.expires_at) == (note, status, 2, before.expires_at)
    assert steps(db) == [("changed", status, status, "desk", {"note": {"from": "Early", "to": note}})]
    (event,) = rows(db)
    assert (event.type, event.payload["changed"], event.payload["version"]) == ("booking.updated", ["note"], 2)
    assert "Early" not in str(event.payload) and "Late" not in str(event.payload)


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        *((status, Extension(HOUR)) for status in Status if status not in (Status.PENDING, Status.EXPIRED)),
        *((status, Amendment({"note": "Late"})) for status in Status if status not in (*TRANSITIONS, Status.EXPIRED)),
    ],
)
def test_a_change_that_the_status_does_not_allow_changes_nothing(db: Db, status: Status, wanted: Wanted) -> None:
    before = a_reservation(db, status)

    refused = changed(db, before, wanted)

    assert isinstance(refused, WrongStatus) and (refused.status, refused.to) == (status, None)
    assert (read(db, before), steps(db), rows(db)) == (before, [], [])


@pytest.mark.parametrize("wanted", CHANGES)
@pytest.mark.parametrize("seen_by_maintenance", [False, True])
@pytest.mark.parametrize("version", [None, 1, 2, 7])
def test_a_hold_that_has_lapsed_is_refused_as_such_and_gives_its_units_back(
    db: Db, wanted: Wanted, seen_by_maintenance: bool, version: int | None
) -> None:
    item = an_item(db, quantity=10)
    hold = an_overdue_hold(db, item, quantity=4)
    if seen_by_maintenance:
        with db.begin() as session:
            assert reservations.expire(session, 10, ROUTES) == 1

    outcome = changed(db, hold, wanted, expected_version=version)

    assert isinstance(outcome, HoldExpired) and outcome.expired_at == hold.expires_at
    assert (read(db, hold).status, read(db, hold).version, available(db, item)) == (Status.EXPIRED, 2, 10)
    assert violations(db) == {}


@pytest.mark.parametrize("wanted", [Extension(timedelta(minutes=14)), Amendment({"note": None}), Amendment({})])
def test_what_is_so_already_succeeds_and_changes_nothing_whatever_version_is_named(db: Db, wanted: Wanted) -> None:
    hold = a_reservation(db, Status.PENDING)

    def refuse(_: Reservation) -> None:
        raise Invalid("version", "it is stale")

    answer = changed(db, hold, wanted, expected_version=7, precondition=refuse)

    assert (answer, read(db, hold), steps(db), rows(db)) == (hold, hold, [], [])


def test_an_overdue_hold_is_refused_even_if_it_has_the_note_already(db: Db) -> None:
    assert isinstance(changed(db, an_overdue_hold(db, an_item(db)), Amendment({"note": None})), HoldExpired)


@pytest.mark.parametrize("wanted", CHANGES)
def test_a_version_that_is_expected_must_be_the_current_one(db: Db, wanted: Wanted) -> None:
    hold = a_hold(db, an_item(db))

    with pytest.raises(StaleVersion):
        changed(db, hold, wanted, expected_version=7)

    assert read(db, hold) == hold
    assert isinstance(changed(db, hold, wanted, expected_version=1), Reservation)


def test_a_hold_lasts_for_seven_days_at_most_from_when_it_was_made(db: Db) -> None:
    hold = a_hold(db, an_item(db))
    made_at = hold.created_at - timedelta(days=6, hours=23)
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == hold.id).values(created_at=made_at))
    before = read(db, hold)

    refused = changed(db, hold, Extension(HOUR + timedelta(minutes=5)))
    accepted = changed(db, hold, Extension(HOUR - timedelta(minutes=5)))

    assert isinstance(refused, HoldTooLong)
    assert (refused.reservation_id, refused.latest_expires_at) == (hold.id, made_at + timedelta(days=7))
    assert isinstance(accepted, Reservation) and accepted.version == before.version + 1


def test_a_refused_extension_changes_nothing(db: Db) -> None:
    hold = a_reservation(db, Status.PENDING)

    refused = changed(db, hold, Extension(timedelta(days=7, seconds=1)))

    assert isinstance(refused, HoldTooLong)
    assert (read(db, hold), steps(db), rows(db)) == (hold, [], [])


def test_every_line_of_a_basket_is_held_until_the_new_time(db: Db) -> None:
    items = [an_item(db, quantity=2) for _ in range(3)]
    reserve(db, a_basket(*((item, 2) for item in items)))
    with db.begin() as session:
        (hold,) = reservations.find(session, reservations.Filter(), limit=10).reservations

    extended = changed(db, hold, Extension(HOUR))

    assert isinstance(extended, Reservation)
    with db.begin() as session:
        until = session.execute(select(reservation_lines.c.held_until)).scalars().all()
    assert until == [extended.expires_at] * 2
    assert violations(db) == {}


def test_a_note_leaves_the_lines_of_a_confirmed_basket_alone(db: Db) -> None:
    reserve(db, a_basket((an_item(db), 1), (an_item(db), 1)))
    with db.begin() as session:
        (hold,) = reservations.find(session, reservations.Filter(), limit=10).reservations
    changed(db, hold, Status.CONFIRMED)

    assert isinstance(changed(db, hold, Amendment({"note": "Late"})), Reservation)

    assert violations(db) == {}


def test_an_extended_hold_is_overdue_for_nobody_until_its_new_time(db: Db) -> None:
    """Neither maintenance nor a request that is short takes its units back, in the first line or in another."""
    items = [an_item(db, quantity=1) for _ in range(2)]
    basket = Claim(an_item(db).id, 1), Claim(items[1].id, 1)
    short = timedelta(seconds=1)
    reserve(db, a_request(items[0], hold_for=short), a_request(items[1], lines=basket, hold_for=short))
    with db.begin() as session:
        holds = reservations.find(session, reservations.Filter(), limit=10).reservations
    extended = [changed(db, hold, Extension(HOUR)) for hold in holds]
    assert all(isinstance(one, Reservation) for one in extended)
    with db.begin() as session:
        session.execute(select(func.pg_sleep_until(max(hold.expires_at for hold in holds if hold.expires_at))))

    refused = [reserve(db, a_request(item))[0] for item in items]
    with db.begin() as session:
        assert reservations.expire(session, 10, ROUTES) == 0

    assert [getattr(one, "available_quantity", None) for one in refused] == [0, 0]
    assert all(read(db, hold).status is Status.PENDING for hold in holds)
    for hold in holds:
        let_lapse(db, hold.id)
    assert [getattr(reserve(db, a_request(item))[0], "replayed", None) for item in items] == [False, False]


def test_a_status_and_fields_are_changed_together(db: Db) -> None:
    hold = a_reservation(db, Status.PENDING)

    with db.begin() as session:
        asked = Change(of=hold, to=Status.CONFIRMED, fields={"note": "Paid"})
        (after,) = reservations.transition(session, [asked], routes_of(db))

    assert isinstance(after, Reservation) and after == read(db, hold)
    assert (after.status, after.note, after.version) == (Status.CONFIRMED, "Paid", 2)
    assert steps(db) == [("status", "PENDING", "CONFIRMED", "system", {"note": {"from": None, "to": "Paid"}})]
    assert [one.type for one in rows(db)] == ["booking.status_changed", "booking.confirmed", "booking.updated"]


def test_several_fields_are_changed_together(db: Db) -> None:
    hold = a_reservation(db, Status.PENDING)
    until = hold.created_at + HOUR

    after = changed(db, hold, Amendment({"expires_at": until, "note": "Late"}))

    assert isinstance(after, Reservation) and after == read(db, hold)
    assert (after.expires_at, after.note, after.version) == (until, "Late", 2)
    ((kind, *_, details),) = steps(db)
    assert (kind, details.keys()) == ("extended", {"expires_at", "note"})
    assert [one.type for one in rows(db)] == ["booking.extended", "booking.updated"]


def test_changes_of_several_kinds_in_one_call_each_have_their_own_effect(db: Db) -> None:
    item = an_item(db, quantity=10)
    wanted: Mapping[int, dict[str, Any]] = {
        0: {"to": Status.CONFIRMED},
        1: {"fields": {"note": "First"}},
        2: {"fields": {"note": "Second"}},
        3: {"to": Status.CANCELLED, "reason": "rain"},
    }
    ids = [a_hold(db, item).id for _ in wanted]

    with db.begin() as session:
        locked = {one.id: one for one in reservations.lock(session, ids)}
        asked = [Change(of=locked[ids[place]], **change) for place, change in wanted.items()]
        answers = reservations.transition(session, asked, routes_of(db))

    with db.begin() as session:
        assert [reservations.get(session, one) for one in ids] == list(answers)
    found = [one for one in answers if isinstance(one, Reservation)]
    assert [one.status for one in found] == ["CONFIRMED", "PENDING", "PENDING", "CANCELLED"]
    assert [one.note for one in found] == [None, "First", "Second", None]
    assert available(db, item) == 7
    assert violations(db) == {}


@pytest.mark.parametrize(("quantity", "kind"), [(7, Reservation), (10, Reservation), (11, SoldOut)])
def test_more_units_of_stock_are_had_from_overdue_holds(db: Db, quantity: int, kind: type[object]) -> None:
    item = an_item(db, quantity=10)
    hold, *_ = a_hold(db, item, 4), an_overdue_hold(db, item, 3), an_overdue_hold(db, item, 3)

    outcome = changed(db, hold, Reschedule(quantity=quantity))

    assert isinstance(outcome, kind)
    assert available(db, item) == 0
    assert not violations(db)
