"""Making, changing and reading reservations over gRPC."""

import json
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import func, select

from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from domain import items
from domain.outbox.table import outbox
from domain.reservations.lifecycle import TRANSITIONS, Status
from domain.reservations.table import history
from domain.runtime.settings import Settings
from tests.api.grpc.requests import UNKNOWN_ID, Moment, a_reservation, hour, refused, reserving
from tests.support.builders import Db, a_calendar, a_hold, an_item, let_lapse, the
from tests.support.grpc_process import serving_grpc
from tests.support.operations import audited

FAILED, NOT_FOUND = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND
NAME = proto.ReservationStatus.Name
FIRST = [proto.PENDING, proto.CONFIRMED, proto.BLOCKED]


def reserved(service: ReservationServiceStub, start: Moment = 0, end: Moment = 1, **fields: Any) -> proto.Reservation:
    made: proto.Reservation = service.reserve(reserving(start, end, **fields)).reservation
    return made


def test_a_reservation_is_answered_with_all_that_was_asked_for_and_its_id(
    service: ReservationServiceStub, db: Db
) -> None:
    made = reserved(service, note="Late arrival")

    assert made == a_reservation(id=made.id, status=proto.PENDING, note="Late arrival")
    stored = the(db, made.id)
    assert (stored.guest_id, stored.sku, stored.source) == ("ann", "room-1", "grpc")
    assert service.get(proto.GetRequest(id=made.id)).reservation == made


@pytest.mark.parametrize("status", FIRST, ids=proto.ReservationStatus.Name)
def test_a_reservation_begins_with_the_status_that_was_asked_for(
    service: ReservationServiceStub, status: proto.ReservationStatus
) -> None:
    assert reserved(service, status=status).status == status


def test_a_pending_reservation_lasts_until_somebody_acts(service: ReservationServiceStub, db: Db) -> None:
    assert the(db, reserved(service).id).expires_at is None


def test_a_pending_reservation_expires_after_the_seconds_that_were_asked_for(
    service: ReservationServiceStub, db: Db
) -> None:
    made = service.reserve(reserving(), metadata=[("ttl-seconds", "60")]).reservation

    stored = the(db, made.id)
    assert stored.expires_at == stored.created_at + timedelta(seconds=60)
    let_lapse(db, stored.id)
    assert service.get(proto.GetRequest(id=made.id)).reservation.status == proto.EXPIRED
    assert refused(service.confirm, proto.ConfirmRequest(id=made.id)).details["ErrorInfo"].reason == "HOLD_EXPIRED"
    assert reserved(service).status == proto.PENDING


def test_an_unknown_resource_is_registered_as_a_calendar_for_one(service: ReservationServiceStub, db: Db) -> None:
    reserved(service, resource_id="desk-9")

    with db() as session:
        item = items.get(session, "desk-9")
    assert (item.kind, item.capacity, item.time_zone, item.name) == ("calendar", 1, "UTC", "desk-9")
    (entry,) = audited(db)
    assert (entry.action, entry.subject, entry.selection) == ("item.stock", f"item:{item.id}", {"capacity": "1"})
    assert entry.who


def test_an_unknown_resource_is_refused_if_the_operator_wants_that(settings: Settings, db: Db) -> None:
    a_calendar(db, sku="room-1")
    with serving_grpc(GRPC_REGISTER_RESOURCES="false") as served, served.calling() as service:
        refusal = refused(service.reserve, reserving(resource_id="desk-9"))
        made = reserved(service, resource_id="room-1")

    assert (refusal.code, refusal.details["ResourceInfo"].resource_name) == (NOT_FOUND, "desk-9")
    assert made.resource_id == "room-1"


def test_overlapping_time_is_refused_with_what_is_in_the_way(service: ReservationServiceStub) -> None:
    reserved(service, 0, 2)

    refusal = refused(service.reserve, reserving(1, 3, user_id="ben"))

    assert refusal.code is FAILED
    violations = refusal.details["PreconditionFailure"].violations
    assert [(one.type, one.subject, one.description) for one in violations] == [
        ("NOT_FREE", "room-1", "1 taken from 2030-01-31T12:00:00Z to 2030-01-31T14:00:00Z.")
    ]
    info = refusal.details["ErrorInfo"]
    assert (info.reason, info.metadata["asked"], info.metadata["available_quantity"]) == ("NOT_FREE", "1", "0")
    assert "ann" not in str(refusal)


def test_an_alternative_that_a_refusal_offers_can_be_reserved(service: ReservationServiceStub) -> None:
    reserved(service, 0, 2)

    refusal = refused(service.reserve, reserving(1, 3))

    metadata = refusal.details["ErrorInfo"].metadata
    assert json.loads(metadata["conflicts"])[0]["start"] == "2030-01-31T12:00:00Z"
    for alternative in json.loads(metadata["alternatives"])[:1]:
        start, end = Timestamp(), Timestamp()
        start.FromJsonString(alternative["start"])
        end.FromJsonString(alternative["end"])
        assert service.reserve(reserving(start, end, resource_id=alternative["sku"])).reservation.id
        break
    else:
        pytest.fail("no alternative was offered")


def test_reservations_that_touch_do_not_overlap(service: ReservationServiceStub) -> None:
    for start in (0, 2, 1):
        assert reserved(service, start, start + 1).status == proto.PENDING


def test_time_of_an_item_in_stock_can_not_be_reserved(service: ReservationServiceStub, db: Db) -> None:
    an_item(db, sku="shirt")

    refusal = refused(service.reserve, reserving(resource_id="shirt"))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.details["BadRequest"].field_violations[0].field == "reservation.start"


def test_a_pending_reservation_is_confirmed_once(service: ReservationServiceStub) -> None:
    made = reserved(service)

    confirmed = service.confirm(proto.ConfirmRequest(id=made.id)).reservation
    refusal = refused(service.confirm, proto.ConfirmRequest(id=made.id))

    assert confirmed == a_reservation(id=made.id, status=proto.CONFIRMED)
    assert (refusal.code, refusal.details["ErrorInfo"].metadata["status"]) == (FAILED, "CONFIRMED")


@pytest.mark.parametrize("status", [proto.CONFIRMED, proto.BLOCKED, proto.CANCELLED], ids=proto.ReservationStatus.Name)
def test_what_is_not_pending_can_not_be_confirmed(
    service: ReservationServiceStub, status: proto.ReservationStatus
) -> None:
    made = reserved(service, status=status if status in FIRST else proto.PENDING)
    if status == proto.CANCELLED:
        service.cancel(proto.CancelRequest(id=made.id))

    assert refused(service.confirm, proto.ConfirmRequest(id=made.id)).code is FAILED
    assert service.get(proto.GetRequest(id=made.id)).reservation.status == status


def test_an_update_sets_the_note_and_leaves_the_status(service: ReservationServiceStub) -> None:
    made = reserved(service, note="Early")

    for note in ("Late", ""):
        updated = service.update(proto.UpdateRequest(id=made.id, note=note)).reservation
        assert (updated.note, updated.status) == (note, proto.PENDING)
        assert service.get(proto.GetRequest(id=made.id)).reservation == updated


def test_an_update_sets_the_note_and_the_status_in_one_change(service: ReservationServiceStub, db: Db) -> None:
    made = reserved(service)

    updated = service.update(proto.UpdateRequest(id=made.id, status=proto.CONFIRMED, note="Paid")).reservation

    assert (updated.note, updated.status) == ("Paid", proto.CONFIRMED)
    stored = the(db, made.id)
    assert (stored.version, stored.note) == (2, "Paid")
    with db() as session:
        of_one = select(outbox.c.type).where(outbox.c.aggregate_id == stored.id, outbox.c.destination == "feed")
        assert [*session.scalars(of_one.order_by(outbox.c.id))] == [
            "booking.created",
            "booking.status_changed",
            "booking.confirmed",
            "booking.updated",
        ]


@pytest.mark.parametrize(
    ("first", "then"),
    [(first, then) for first in FIRST for then in sorted(TRANSITIONS[Status[NAME(first)]] - {Status.EXPIRED})],
    ids=str,
)
def test_an_update_sets_a_note_with_whatever_status_the_lifecycle_allows(
    service: ReservationServiceStub, first: proto.ReservationStatus, then: Status
) -> None:
    made = reserved(service, status=first)

    updated = service.update(proto.UpdateRequest(id=made.id, status=then.value, note="So it ended")).reservation

    assert (updated.note, NAME(updated.status)) == ("So it ended", then)


def test_an_update_to_what_is_so_already_changes_nothing(service: ReservationServiceStub, db: Db) -> None:
    made = reserved(service, note="Paid", status=proto.CONFIRMED)

    service.update(proto.UpdateRequest(id=made.id, status=proto.CONFIRMED, note="Paid"))

    assert the(db, made.id).version == 1


@pytest.mark.parametrize("status", [proto.BLOCKED, proto.PENDING, proto.CHECKED_IN], ids=proto.ReservationStatus.Name)
def test_an_update_to_a_status_that_the_lifecycle_does_not_allow_sets_no_note(
    service: ReservationServiceStub, status: proto.ReservationStatus
) -> None:
    made = reserved(service, status=proto.BLOCKED if status != proto.BLOCKED else proto.PENDING)

    assert refused(service.update, proto.UpdateRequest(id=made.id, status=status, note="Late")).code is FAILED
    assert service.get(proto.GetRequest(id=made.id)).reservation == made


@pytest.mark.parametrize("status", FIRST, ids=proto.ReservationStatus.Name)
def test_cancelling_frees_the_time_and_may_be_repeated(
    service: ReservationServiceStub, db: Db, status: proto.ReservationStatus
) -> None:
    made = reserved(service, status=status)

    cancelled = [service.cancel(proto.CancelRequest(id=made.id)).reservation for _ in range(2)]

    assert cancelled == [a_reservation(id=made.id, status=proto.CANCELLED)] * 2
    assert reserved(service).id != made.id
    with db() as session:
        entries = select(func.count()).where(history.c.reservation_id == made.id)
        assert session.scalar(entries) == 2


def test_what_was_reserved_over_http_is_shown_without_a_time(service: ReservationServiceStub, db: Db) -> None:
    item = an_item(db)
    hold = a_hold(db, item)

    shown = service.get(proto.GetRequest(id=str(hold.id))).reservation

    assert shown == proto.Reservation(id=str(hold.id), status=proto.PENDING, resource_id=item.sku)


def test_an_unknown_reservation_is_not_found(service: ReservationServiceStub) -> None:
    for method, request in (
        (service.get, proto.GetRequest(id=UNKNOWN_ID)),
        (service.confirm, proto.ConfirmRequest(id=UNKNOWN_ID)),
        (service.update, proto.UpdateRequest(id=UNKNOWN_ID)),
        (service.cancel, proto.CancelRequest(id=UNKNOWN_ID.upper())),
    ):
        refusal = refused(method, request)
        assert (refusal.code, refusal.details["ResourceInfo"].resource_name) == (NOT_FOUND, UNKNOWN_ID)


def test_the_finest_and_the_largest_periods_are_stored_exactly(service: ReservationServiceStub) -> None:
    start = hour(0)
    start.nanos = 999_999_000
    largest = hour(731 * 24)
    largest.nanos = 999_999_000

    made = reserved(service, start=start, end=largest)

    assert (made.start, made.end) == (start, largest)
    assert service.get(proto.GetRequest(id=made.id)).reservation == made


def test_every_status_has_its_number_in_answers(service: ReservationServiceStub) -> None:
    made = reserved(service, status=proto.CONFIRMED)

    for status in (proto.CHECKED_IN, proto.COMPLETED):
        assert service.update(proto.UpdateRequest(id=made.id, status=status)).reservation.status == status
