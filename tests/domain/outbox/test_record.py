"""Recording: a promise to each destination that wants it, in the transaction that makes it true."""

from uuid import uuid4

import pytest

from domain import outbox
from domain.outbox import Event
from domain.outbox.routes import Route, Routes
from domain.outbox.table import lane_of
from domain.runtime import database
from tests.support.builders import Db, an_event, recorded
from tests.support.outbox import rows


@pytest.fixture
def db(db: Db) -> Db:
    """Sessions whose events go to two places: one wants bookings, the other one confirmations too."""
    bookings = Route(name="bookings", url="null:", events=("booking.*",))
    everything = Route(name="everything", url="null:", events=("*", "reservation_confirm"))
    return database.sessions(db.kw["bind"], routes=Routes([bookings, everything]))


def test_each_destination_that_wants_an_event_gets_a_row_of_its_own_with_the_same_event_id(db: Db) -> None:
    aggregate = uuid4()

    recorded(db, an_event(aggregate, "booking.created"), an_event(aggregate, "reservation_confirm"))

    created, created_too, confirm = rows(db)
    assert [one.destination for one in (created, created_too, confirm)] == ["bookings", "everything", "everything"]
    assert created.event_id == created_too.event_id != confirm.event_id
    assert {(one.aggregate_id, one.lane) for one in rows(db)} == {(aggregate, lane_of(aggregate))}


def test_what_nobody_wants_is_not_written(db: Db) -> None:
    with db.begin() as session:
        assert outbox.record(session, [an_event(event_type="reservation_release")]) == 0
        assert outbox.record(session, []) == 0

    assert rows(db) == []


def test_nothing_is_promised_by_a_transaction_that_does_not_commit(db: Db) -> None:
    with db() as session:
        assert outbox.record(session, [an_event()]) == 2
        session.rollback()

    assert rows(db) == []


def test_a_fresh_row_is_ready_and_has_never_been_tried(db: Db) -> None:
    recorded(db, an_event())

    for one in rows(db):
        untried = (one.attempts, one.available_at, one.unreachable_at, one.last_error, one.processed_at, one.dead_at)
        assert untried == (0, None, None, None, None, None)


def test_ids_follow_the_order_of_events(db: Db) -> None:
    types = ["booking.created", *["booking.status_changed", "booking.cancelled"] * 10]
    recorded(db, *(an_event(event_type=name) for name in types))

    assert [one.type for one in rows(db) if one.destination == "bookings"] == types


def test_headers_and_payload_come_back_as_they_were(db: Db) -> None:
    told = an_event(sku='\u2028\t"\\N', item_id=2**63 - 1).payload
    recorded(db, Event("booking.created", uuid4(), told, {"traceparent": "00-a-b-01"}))

    one = rows(db)[0]
    assert one.payload == told
    assert one.headers == {"traceparent": "00-a-b-01"}


def test_events_that_share_a_payload_and_events_that_do_not_each_get_their_own(db: Db) -> None:
    aggregate = uuid4()
    first, second = an_event(aggregate).payload, an_event(aggregate, quantity=3).payload
    recorded(db, *(Event("booking.created", aggregate, payload) for payload in (first, first, second, first)))

    assert [one.payload for one in rows(db) if one.destination == "bookings"] == [first, first, second, first]
