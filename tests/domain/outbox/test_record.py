"""Recording: one row for each destination that wants an event, in the transaction of the change that it reports."""

from uuid import uuid4

import pytest

from domain import outbox
from domain.fulfilment import STEP_TYPES
from domain.outbox import Event, Route, Routes
from domain.outbox.table import lane_of
from tests.support.builders import Db, an_event, recorded, routes_of, with_routes
from tests.support.outbox import rows


@pytest.fixture
def db(db: Db) -> Db:
    """Sessions whose events go to two destinations: one wants bookings, the other one confirmations as well."""
    bookings = Route(name="bookings", url="null:", events=("booking.*",))
    everything = Route(name="everything", url="null:", events=("*", "reservation_confirm"))
    return with_routes(db, Routes([bookings, everything], step_types=STEP_TYPES))


def test_each_destination_that_wants_an_event_gets_a_row_of_its_own_with_the_same_event_id(db: Db) -> None:
    aggregate = uuid4()

    recorded(db, an_event(aggregate, "booking.created"), an_event(aggregate, "reservation_confirm"))

    created, created_too, confirm = rows(db)
    assert [one.destination for one in (created, created_too, confirm)] == ["bookings", "everything", "everything"]
    assert created.event_id == created_too.event_id != confirm.event_id
    assert {(one.aggregate_id, one.lane) for one in rows(db)} == {(aggregate, lane_of(aggregate))}


def test_an_event_that_no_destination_wants_is_not_written(db: Db) -> None:
    with db.begin() as session:
        assert outbox.record(session, [an_event(event_type="reservation_release")], routes_of(db)) == 0
        assert outbox.record(session, [], routes_of(db)) == 0

    assert rows(db) == []


def test_a_transaction_that_does_not_commit_records_nothing(db: Db) -> None:
    with db() as session:
        assert outbox.record(session, [an_event()], routes_of(db)) == 2
        session.rollback()

    assert rows(db) == []


def test_a_session_that_has_recorded_an_event_says_so(db: Db) -> None:
    with db.begin() as session:
        outbox.record(session, [an_event(event_type="reservation_release")], routes_of(db))
        assert not outbox.has_recorded(session)

        outbox.record(session, [an_event()], routes_of(db))
        assert outbox.has_recorded(session)


def test_a_new_row_is_ready_and_has_never_been_tried(db: Db) -> None:
    recorded(db, an_event())

    for one in rows(db):
        untried = (one.attempts, one.available_at, one.unreachable_at, one.last_error, one.processed_at, one.dead_at)
        assert untried == (0, None, None, None, None, None)


def test_ids_follow_the_order_of_events(db: Db) -> None:
    types = ["booking.created", *["booking.status_changed", "booking.cancelled"] * 10]
    recorded(db, *(an_event(event_type=name) for name in types))

    assert [one.type for one in rows(db) if one.destination == "bookings"] == types


def test_headers_and_payload_are_stored_as_they_were(db: Db) -> None:
    payload = an_event(sku='\u2028\t"\\N', item_id=2**63 - 1).payload
    recorded(db, Event("booking.created", uuid4(), payload, {"traceparent": "00-a-b-01"}))

    one = rows(db)[0]
    assert one.payload == payload
    assert one.headers == {"traceparent": "00-a-b-01"}


def test_events_that_share_a_payload_and_events_that_do_not_each_get_their_own(db: Db) -> None:
    aggregate = uuid4()
    first, second = an_event(aggregate).payload, an_event(aggregate, quantity=3).payload
    recorded(db, *(Event("booking.created", aggregate, payload) for payload in (first, first, second, first)))

    assert [one.payload for one in rows(db) if one.destination == "bookings"] == [first, first, second, first]
