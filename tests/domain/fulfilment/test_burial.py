"""Burying a confirmation: its hold is cancelled, and the service is asked to release what it may have confirmed."""

from collections.abc import Sequence
from concurrent.futures import Future
from datetime import timedelta

from sqlalchemy import update

from domain.fulfilment import CONFIRMATION
from domain.fulfilment.burial import bury
from domain.outbox import Delivered, InFlight, Row, make_due_rows_ready
from domain.outbox import release as outbox_release
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.table import outbox
from domain.reservations import Reservation
from domain.reservations.events import RESERVATION_CONFIRM
from domain.reservations.lifecycle import Status
from tests.domain.fulfilment.test_confirmation import last_change, released, set_status, stored
from tests.support.builders import Db, a_hold, an_item, available, let_lapse, routes_of
from tests.support.invariants import violations
from tests.support.operations import ENTRY
from tests.support.outbox import a_lane, claimed, fetched, rows, settled, time_passes


def buried(db: Db, hold: Reservation, destination: str = CONFIRMATION) -> list[str]:
    selection = Selection(among=Among.PENDING, reservation_id=hold.id, destination=destination)
    with db.begin() as session:
        return [row.type for row in bury(session, selection, ENTRY, routes_of(db))]


def due(db: Db) -> Sequence[Row]:
    """The rows of the step that a worker would send now."""
    lane = a_lane(db, CONFIRMATION)
    with db.begin() as session:
        make_due_rows_ready(session, lane)
    return fetched(db, lane)


def test_its_hold_is_cancelled_and_the_stock_comes_back(db: Db) -> None:
    item = an_item(db, quantity=5)
    hold, other = a_hold(db, item, quantity=2), a_hold(db, item)

    assert buried(db, hold) == [RESERVATION_CONFIRM]

    assert last_change(db, hold) == ("CANCELLED", "system", "confirmation-unavailable")
    assert available(db, item) == 4
    assert released(db) == [hold.id], "an earlier call may have reached the service"
    assert stored(db, other).status is Status.PENDING
    assert violations(db) == {}


def test_the_answer_that_was_on_its_way_changes_nothing_more(db: Db) -> None:
    hold = a_hold(db, an_item(db))
    lane = a_lane(db, CONFIRMATION)
    batch = fetched(db, lane)

    buried(db, hold)

    assert settled(db, lane, [(batch[0], Delivered())]) is None
    assert stored(db, hold).status is Status.CANCELLED
    assert claimed(db, CONFIRMATION) is None, "the release would overtake the call"
    time_passes(db)
    assert [row.type for row in due(db)] == ["reservation_release"]


def test_the_release_waits_for_a_call_that_outlasts_its_batch(db: Db) -> None:
    hold = a_hold(db, an_item(db))
    lane = a_lane(db, CONFIRMATION)
    settlement = settled(db, lane, [(fetched(db, lane)[0], InFlight(timedelta(minutes=1), Future()))])
    with db.begin() as session:
        outbox_release(session, lane)

    buried(db, hold)

    assert settlement is not None
    (release,) = [row for row in rows(db) if row.type == "reservation_release"]
    assert release.available_at == settlement.at + timedelta(minutes=1)


def test_the_release_of_what_nobody_asks_at_this_moment_is_due_at_once(db: Db) -> None:
    hold = a_hold(db, an_item(db))

    buried(db, hold)

    assert [row.type for row in due(db)] == ["reservation_release"]


def test_a_hold_that_was_confirmed_meanwhile_stays_confirmed(db: Db) -> None:
    hold = a_hold(db, an_item(db))
    set_status(db, hold, Status.CONFIRMED)

    buried(db, hold)

    assert stored(db, hold).status is Status.CONFIRMED
    assert released(db) == []


def test_a_hold_that_is_overdue_expires(db: Db) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item)
    let_lapse(db, hold.id)

    buried(db, hold)

    assert stored(db, hold).status is Status.EXPIRED
    assert available(db, item) == 5


def test_a_buried_event_of_a_sink_changes_no_reservation(db: Db) -> None:
    hold = a_hold(db, an_item(db))

    assert buried(db, hold, "events") == ["booking.created"]

    assert stored(db, hold).status is Status.PENDING
    assert [row.type for row in rows(db) if row.dead_at is None] == [RESERVATION_CONFIRM]


def test_the_events_that_follow_belong_to_the_request_that_asked(db: Db) -> None:
    hold = a_hold(db, an_item(db))
    (asked,) = (row for row in rows(db) if row.type == RESERVATION_CONFIRM)
    with db.begin() as session:
        session.execute(update(outbox).where(outbox.c.id == asked.id).values(headers={"correlation_id": "c-1"}))

    buried(db, hold)

    following = [row for row in rows(db) if row.id > asked.id and row.type != "booking.created"]
    assert following and {row.headers.get("correlation_id") for row in following} == {"c-1"}
