"""What the confirmation service's answers do to reservations, whenever they come."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from domain import reservations
from domain.fulfilment import confirmation
from domain.outbox.table import outbox
from domain.reservations import Reservation
from domain.reservations.lifecycle import Status
from domain.reservations.table import history
from domain.reservations.table import reservations as table
from tests.support.builders import Db, a_hold, an_item, an_overdue_hold, available


def answered(
    db: Db,
    confirmed: Collection[UUID] = (),
    refused: Mapping[UUID, str] | None = None,
    given_up: Mapping[UUID, str] | None = None,
) -> None:
    with db.begin() as session:
        confirmation.answer(session, confirmed=confirmed, refused=refused or {}, given_up=given_up or {})


def stands(db: Db, one: Reservation) -> Reservation:
    with db.begin() as session:
        return reservations.get(session, one.id)


def last_step(db: Db, one: Reservation) -> tuple[Any, ...]:
    newest = select(history.c.to_status, history.c.changed_by, history.c.reason).order_by(history.c.id.desc()).limit(1)
    with db.begin() as session:
        return tuple(session.execute(newest.where(history.c.reservation_id == one.id)).one())


def released(db: Db) -> list[UUID]:
    """Those for which the service is told to let go."""
    with db.begin() as session:
        found = select(outbox.c.aggregate_id).where(outbox.c.type == "reservation_release").order_by(outbox.c.id)
        return list(session.execute(found).scalars())


def came_to(db: Db, one: Reservation, status: Status) -> None:
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == one.id).values(status=status))


def test_a_confirmed_hold_is_confirmed(db: Db) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)

    answered(db, confirmed=[hold.id])

    after = stands(db, hold)
    assert (after.status, after.version, after.confirmed_at is not None) == (Status.CONFIRMED, 2, True)
    assert last_step(db, hold) == ("CONFIRMED", "confirmation-service", None)
    assert available(db, item) == 3
    assert released(db) == []


def test_a_refused_hold_is_cancelled_with_the_reason_and_its_stock_comes_back(db: Db) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)

    answered(db, refused={hold.id: "no such room"})

    reason = "the confirmation service refused: no such room"
    assert (stands(db, hold).status, stands(db, hold).cancellation_reason) == (Status.CANCELLED, reason)
    assert last_step(db, hold) == ("CANCELLED", "confirmation-service", reason)
    assert available(db, item) == 5
    assert released(db) == [], "it holds nothing that it could let go of"


def test_a_hold_that_was_given_up_is_cancelled_and_the_service_told_to_let_go(db: Db) -> None:
    """It may have confirmed, and its answer may have been lost."""
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)

    answered(db, given_up={hold.id: "500 oops"})

    reason = "the confirmation service could not be asked: 500 oops"
    assert last_step(db, hold) == ("CANCELLED", "system", reason)
    assert available(db, item) == 5
    assert released(db) == [hold.id]


@pytest.mark.parametrize("answer", ["confirmed", "given_up"])
def test_an_answer_that_comes_after_the_hold_has_lapsed_does_not_confirm_and_releases(db: Db, answer: str) -> None:
    item = an_item(db, quantity=5)
    hold = an_overdue_hold(db, item, quantity=2)

    answered(db, **{answer: {hold.id: "e"}})

    assert stands(db, hold).status is Status.EXPIRED
    assert available(db, item) == 5
    assert released(db) == [hold.id]


def test_a_refusal_that_comes_after_the_hold_has_lapsed_releases_nothing(db: Db) -> None:
    hold = an_overdue_hold(db, an_item(db))

    answered(db, refused={hold.id: "no"})

    assert stands(db, hold).status is Status.EXPIRED
    assert released(db) == []


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.EXPIRED, Status.REJECTED, Status.NO_SHOW])
def test_a_confirmation_of_what_is_gone_already_is_released(db: Db, status: Status) -> None:
    hold = a_hold(db, an_item(db))
    came_to(db, hold, status)

    answered(db, confirmed=[hold.id])

    assert (stands(db, hold).status, stands(db, hold).version) == (status, 1)
    assert released(db) == [hold.id]


@pytest.mark.parametrize("answer", ["confirmed", "refused", "given_up"])
@pytest.mark.parametrize("status", [Status.CONFIRMED, Status.CHECKED_IN, Status.COMPLETED])
def test_what_was_confirmed_by_hand_meanwhile_stays_so_whatever_the_answer(db: Db, status: Status, answer: str) -> None:
    hold = a_hold(db, an_item(db))
    came_to(db, hold, status)

    answered(db, **{answer: {hold.id: "e"}})

    assert (stands(db, hold).status, stands(db, hold).version) == (status, 1)
    assert released(db) == []


def test_a_repeated_answer_changes_nothing_more(db: Db) -> None:
    item = an_item(db, quantity=5)
    hold, other = a_hold(db, item), a_hold(db, item)

    for _ in range(2):
        answered(db, confirmed=[hold.id], refused={other.id: "no"})

    assert (stands(db, hold).status, stands(db, hold).version) == (Status.CONFIRMED, 2)
    assert (stands(db, other).status, stands(db, other).version) == (Status.CANCELLED, 2)
    assert available(db, item) == 4
    assert released(db) == []


def test_an_answer_for_a_reservation_that_is_not_there_is_ignored(db: Db) -> None:
    answered(db, confirmed=[uuid4()], refused={uuid4(): "no"}, given_up={uuid4(): "e"})
    answered(db)

    assert released(db) == []


def test_many_answers_are_taken_at_once(db: Db) -> None:
    item = an_item(db, quantity=10)
    yes, no, lost = (a_hold(db, item) for _ in range(3))
    late = an_overdue_hold(db, item)

    answered(db, confirmed=[yes.id, late.id], refused={no.id: "no"}, given_up={lost.id: "e"})

    statuses = [stands(db, one).status for one in (yes, no, lost, late)]
    assert statuses == [Status.CONFIRMED, Status.CANCELLED, Status.CANCELLED, Status.EXPIRED]
    assert set(released(db)) == {lost.id, late.id}
    assert available(db, item) == 9


def test_the_release_follows_what_it_is_about(db: Db) -> None:
    """To one destination the id order is the order of delivery: ask first, let go later."""
    hold = an_overdue_hold(db, an_item(db))

    answered(db, confirmed=[hold.id])

    asked = select(outbox.c.type).where(outbox.c.destination == "confirmation").order_by(outbox.c.id)
    with db.begin() as session:
        assert session.execute(asked).scalars().all() == ["reservation_confirm", "reservation_release"]


def test_only_holds_that_stand_are_still_held(db: Db) -> None:
    item = an_item(db)
    states, lapsed, done = a_hold(db, item), an_overdue_hold(db, item), a_hold(db, item)
    came_to(db, done, Status.CONFIRMED)

    with db.begin() as session:
        assert confirmation.still_held(session, [standing.id, lapsed.id, done.id, uuid4()]) == {standing.id}


def test_a_hold_that_ends_while_the_service_thinks_is_not_confirmed(db: Db) -> None:
    hold = a_hold(db, an_item(db))
    with db.begin() as session:
        assert confirmation.still_held(session, [hold.id]) == {hold.id}
        ended = update(table).where(table.c.id == hold.id)
        session.execute(ended.values(expires_at=func.clock_timestamp()))

    answered(db, confirmed=[hold.id])

    assert stands(db, hold).status is Status.EXPIRED
