"""What the answers of the confirmation service do to reservations, however late they come."""

from collections.abc import Collection
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, select, update

from domain import reservations
from domain.fulfilment import confirmation
from domain.fulfilment.confirmation import DECLINED
from domain.outbox.table import outbox
from domain.reservations import Reservation
from domain.reservations.lifecycle import Status
from domain.reservations.table import history
from domain.reservations.table import reservations as table
from tests.support.builders import Db, a_hold, an_item, an_overdue_hold, available, routes_of


def answered(
    db: Db,
    confirmed: Collection[UUID] = (),
    declined: Collection[UUID] = (),
    given_up: Collection[UUID] = (),
) -> None:
    with db.begin() as session:
        confirmation.answer(session, confirmed=confirmed, declined=declined, given_up=given_up, routes=routes_of(db))


def stored(db: Db, one: Reservation) -> Reservation:
    with db.begin() as session:
        return reservations.get(session, one.id)


def last_change(db: Db, one: Reservation) -> tuple[Any, ...]:
    newest = select(history.c.to_status, history.c.changed_by, history.c.reason).order_by(history.c.id.desc()).limit(1)
    with db.begin() as session:
        return tuple(session.execute(newest.where(history.c.reservation_id == one.id)).one())


def released(db: Db) -> list[UUID]:
    """Return the reservations that the service is asked to release, in order."""
    with db.begin() as session:
        found = select(outbox.c.aggregate_id).where(outbox.c.type == "reservation_release").order_by(outbox.c.id)
        return list(session.execute(found).scalars())


def set_status(db: Db, one: Reservation, status: Status) -> None:
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == one.id).values(status=status))


def test_a_confirmed_hold_is_confirmed(db: Db) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)

    answered(db, confirmed=[hold.id])

    after = stored(db, hold)
    assert (after.status, after.version, after.confirmed_at is not None) == (Status.CONFIRMED, 2, True)
    assert last_change(db, hold) == ("CONFIRMED", "confirmation-service", None)
    assert available(db, item) == 3
    assert released(db) == []


def test_a_declined_hold_is_rejected_with_a_code_as_the_reason_and_its_stock_comes_back(db: Db) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)

    answered(db, declined=[hold.id])

    after = stored(db, hold)
    assert (after.status, after.cancellation_reason, after.cancelled_at) == (Status.REJECTED, DECLINED, None)
    assert last_change(db, hold) == ("REJECTED", "confirmation-service", "confirmation-declined")
    assert available(db, item) == 5
    assert released(db) == [], "the service has confirmed nothing that it could release"


def test_a_hold_that_was_given_up_is_cancelled_and_the_service_is_asked_to_release_it(db: Db) -> None:
    """The service may have confirmed the hold, and its answer may have been lost."""
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)

    answered(db, given_up=[hold.id])

    assert last_change(db, hold) == ("CANCELLED", "system", "confirmation-unavailable")
    assert available(db, item) == 5
    assert released(db) == [hold.id]


@pytest.mark.parametrize("answer", ["confirmed", "given_up"])
def test_an_answer_that_comes_after_the_hold_has_expired_confirms_nothing_and_releases(db: Db, answer: str) -> None:
    item = an_item(db, quantity=5)
    hold = an_overdue_hold(db, item, quantity=2)

    answered(db, **{answer: [hold.id]})

    assert stored(db, hold).status is Status.EXPIRED
    assert available(db, item) == 5
    assert released(db) == [hold.id]


def test_a_refusal_that_comes_after_the_hold_has_expired_releases_nothing(db: Db) -> None:
    hold = an_overdue_hold(db, an_item(db))

    answered(db, declined=[hold.id])

    assert stored(db, hold).status is Status.EXPIRED
    assert released(db) == []


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.EXPIRED, Status.REJECTED, Status.NO_SHOW])
def test_a_confirmation_of_a_reservation_that_has_ended_is_released(db: Db, status: Status) -> None:
    hold = a_hold(db, an_item(db))
    set_status(db, hold, status)

    answered(db, confirmed=[hold.id])

    assert (stored(db, hold).status, stored(db, hold).version) == (status, 1)
    assert released(db) == [hold.id]


@pytest.mark.parametrize("answer", ["confirmed", "declined", "given_up"])
@pytest.mark.parametrize("status", [Status.CONFIRMED, Status.CHECKED_IN, Status.COMPLETED])
def test_a_reservation_that_was_confirmed_meanwhile_stays_so_whatever_the_answer(
    db: Db, status: Status, answer: str
) -> None:
    hold = a_hold(db, an_item(db))
    set_status(db, hold, status)

    answered(db, **{answer: [hold.id]})

    assert (stored(db, hold).status, stored(db, hold).version) == (status, 1)
    assert released(db) == []


def test_a_repeated_answer_changes_nothing_more(db: Db) -> None:
    item = an_item(db, quantity=5)
    hold, other = a_hold(db, item), a_hold(db, item)

    for _ in range(2):
        answered(db, confirmed=[hold.id], declined=[other.id])

    assert (stored(db, hold).status, stored(db, hold).version) == (Status.CONFIRMED, 2)
    assert (stored(db, other).status, stored(db, other).version) == (Status.REJECTED, 2)
    assert available(db, item) == 4
    assert released(db) == []


def test_an_answer_for_an_unknown_reservation_is_ignored(db: Db) -> None:
    answered(db, confirmed=[uuid4()], declined=[uuid4()], given_up=[uuid4()])
    answered(db)

    assert released(db) == []


def test_many_answers_are_applied_together(db: Db) -> None:
    item = an_item(db, quantity=10)
    yes, no, lost = (a_hold(db, item) for _ in range(3))
    late = an_overdue_hold(db, item)

    answered(db, confirmed=[yes.id, late.id], declined=[no.id], given_up=[lost.id])

    statuses = [stored(db, one).status for one in (yes, no, lost, late)]
    assert statuses == [Status.CONFIRMED, Status.REJECTED, Status.CANCELLED, Status.EXPIRED]
    assert set(released(db)) == {lost.id, late.id}
    assert available(db, item) == 9


def test_the_request_to_release_is_recorded_after_the_request_to_confirm(db: Db) -> None:
    """Rows are delivered in order of id to one destination."""
    hold = an_overdue_hold(db, an_item(db))

    answered(db, confirmed=[hold.id])

    asked = select(outbox.c.type).where(outbox.c.destination == "confirmation").order_by(outbox.c.id)
    with db.begin() as session:
        assert session.execute(asked).scalars().all() == ["reservation_confirm", "reservation_release"]


def test_the_events_of_an_answer_name_the_request_that_the_service_was_asked_for(db: Db) -> None:
    item = an_item(db, quantity=5)
    yes, no = a_hold(db, item), a_hold(db, item)
    late = an_overdue_hold(db, item)
    causes = {one.id: {"correlation_id": f"r-{one.id}"} for one in (yes, no, late)}
    with db.begin() as session:
        session.execute(delete(outbox))

    with db.begin() as session:
        confirmation.answer(
            session,
            confirmed=[yes.id, late.id],
            declined=[no.id],
            given_up=(),
            headers=causes,
            routes=routes_of(db),
        )

    with db.begin() as session:
        recorded = session.execute(select(outbox.c.type, outbox.c.aggregate_id, outbox.c.headers)).all()
    assert {row.type for row in recorded} == {
        "booking.status_changed",
        "booking.confirmed",
        "booking.rejected",
        "booking.expired",
        "reservation_release",
    }
    assert all(row.headers == causes[row.aggregate_id] for row in recorded)


def test_only_unexpired_holds_are_still_held(db: Db) -> None:
    item = an_item(db)
    hold, overdue, done = a_hold(db, item), an_overdue_hold(db, item), a_hold(db, item)
    set_status(db, done, Status.CONFIRMED)

    with db.begin() as session:
        assert confirmation.still_held(session, [hold.id, overdue.id, done.id, uuid4()]) == {hold.id}


def test_a_hold_that_ends_while_the_service_decides_is_not_confirmed(db: Db) -> None:
    hold = a_hold(db, an_item(db))
    with db.begin() as session:
        assert confirmation.still_held(session, [hold.id]) == {hold.id}
        ended = update(table).where(table.c.id == hold.id)
        session.execute(ended.values(expires_at=func.clock_timestamp()))

    answered(db, confirmed=[hold.id])

    assert stored(db, hold).status is Status.EXPIRED
