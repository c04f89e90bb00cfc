"""Bad input: it is refused with INVALID_ARGUMENT and the name of the field, and changes nothing."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from tests.api.grpc.requests import UNKNOWN_ID, hour, refused, reserving
from tests.support.builders import Db, the
from tests.support.grpc_process import ServedGrpc
from tests.support.refusals import everything

#: What PostgreSQL, a shell or a log must not take for anything but text.
HOSTILE = ["x' OR '1'='1", '"; DROP TABLE reservations; --', "$$", "%s {0} \\", "\u202e\U0001f6cf", "<script>", "\n\t"]

TOO_LATE, TOO_EARLY = Timestamp(seconds=253_402_300_800), Timestamp(seconds=-62_135_596_801)

#: A number that no status has, as a client of a later contract may send it.
UNKNOWN_STATUS: Any = 10

#: Requests to reserve, each with the field that is at fault.
BAD = {
    "reservation": proto.ReserveRequest(),
    "reservation.id": reserving(id=UNKNOWN_ID),
    "reservation.user_id": reserving(user_id=""),
    "reservation.user_id ": reserving(user_id="x" * 65),
    "reservation.user_id  ": reserving(user_id="a\0b"),
    "reservation.resource_id": reserving(resource_id=""),
    "reservation.resource_id ": reserving(resource_id="x" * 65),
    "reservation.resource_id  ": reserving(resource_id="\0"),
    "reservation.note": reserving(note="x" * 2_001),
    "reservation.note ": reserving(note="a\0"),
    "reservation.status": reserving(status=proto.CANCELLED),
    "reservation.status ": reserving(status=99),
    "reservation.status  ": reserving(status=-1),
    "reservation.start": reserving(start=None),
    "reservation.start ": reserving(start=TOO_LATE),
    "reservation.start  ": reserving(start=TOO_EARLY),
    "reservation.start   ": reserving(start=Timestamp(seconds=1, nanos=1_000_000_000)),
    "reservation.start    ": reserving(start=Timestamp(seconds=1, nanos=-1)),
    "reservation.start     ": reserving(start=Timestamp(seconds=-1)),
    "reservation.start      ": reserving(start=Timestamp(seconds=1, nanos=1)),
    "reservation.end": reserving(end=None),
    "reservation.end ": reserving(0, 0),
    "reservation.end  ": reserving(1, 0),
    "reservation.end   ": reserving(end=Timestamp(seconds=7_258_118_401)),
    "reservation.end    ": reserving(0, 24 * 731 + 0.001),
    "reservation.end     ": reserving(end=Timestamp(seconds=2**63 - 1)),
}


@pytest.fixture(autouse=True)
def _nothing_changes(service: ReservationServiceStub, db: Db, request: pytest.FixtureRequest) -> Iterator[None]:
    before = everything(db)
    yield
    assert "accepted" in request.node.name or everything(db) == before


@pytest.mark.parametrize("field", BAD)
def test_a_reservation_that_can_not_be_is_refused_by_field(service: ReservationServiceStub, field: str) -> None:
    refusal = refused(service.reserve, BAD[field])

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [one.field for one in refusal.details["BadRequest"].field_violations] == [field.strip()]
    assert refusal.text.startswith(field.strip())


@pytest.mark.parametrize(
    "written",
    ["", "1", "zz", "{" + UNKNOWN_ID + "}", UNKNOWN_ID.replace("-", ""), UNKNOWN_ID + "0", "x" * 65, *HOSTILE],
)
def test_an_id_that_is_no_uuid_is_refused(service: ReservationServiceStub, written: str) -> None:
    for method, request in (
        (service.get, proto.GetRequest(id=written)),
        (service.confirm, proto.ConfirmRequest(id=written)),
        (service.update, proto.UpdateRequest(id=written)),
        (service.cancel, proto.CancelRequest(id=written)),
    ):
        refusal = refused(method, request)
        assert (refusal.code, refusal.details["BadRequest"].field_violations[0].field) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "id",
        )


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("status", proto.UpdateRequest(id=UNKNOWN_ID, status=UNKNOWN_STATUS)),
        ("status", proto.UpdateRequest(id=UNKNOWN_ID, status=proto.EXPIRED)),
        ("note", proto.UpdateRequest(id=UNKNOWN_ID, note="x" * 2_001)),
        ("note", proto.UpdateRequest(id=UNKNOWN_ID, note="\0")),
    ],
)
def test_an_update_that_can_not_be_is_refused_by_field(
    service: ReservationServiceStub, field: str, request_: proto.UpdateRequest
) -> None:
    refusal = refused(service.update, request_)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.details["BadRequest"].field_violations[0].field == field


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("user_id", proto.QueryRequest(user_id="x" * 65)),
        ("user_id", proto.QueryRequest(user_id="\0")),
        ("resource_id", proto.QueryRequest(resource_id="x" * 65)),
        ("resource_id", proto.QueryRequest(resource_id="a\0")),
        ("status", proto.QueryRequest(status=UNKNOWN_STATUS)),
        ("start", proto.QueryRequest(start=TOO_EARLY)),
        ("end", proto.QueryRequest(end=TOO_LATE)),
        ("end", proto.QueryRequest(start=hour(1), end=hour(1))),
        ("end", proto.QueryRequest(start=hour(1), end=hour(0))),
    ],
)
def test_a_query_that_can_not_be_is_refused_by_field(
    service: ReservationServiceStub, field: str, request_: proto.QueryRequest
) -> None:
    refusal = refused(lambda: [*service.Query(request_)])

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.details["BadRequest"].field_violations[0].field == field


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ttl-seconds", "0"),
        ("ttl-seconds", "-1"),
        ("ttl-seconds", "1.5"),
        ("ttl-seconds", "604801"),
        ("ttl-seconds", "9" * 400),
        ("ttl-seconds", ""),
        ("idempotency-key", ""),
        ("idempotency-key", "x" * 256),
        ("x-client-id", ""),
        ("x-client-id", "x" * 256),
    ],
)
def test_metadata_that_can_not_be_is_refused_by_name(service: ReservationServiceStub, name: str, value: str) -> None:
    refusal = refused(service.reserve, reserving(), metadata=[(name, value)])

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.details["BadRequest"].field_violations[0].field == name


@pytest.mark.parametrize("name", ["ttl-seconds", "idempotency-key", "x-client-id"])
def test_metadata_that_is_given_twice_is_refused(service: ReservationServiceStub, name: str) -> None:
    refusal = refused(service.reserve, reserving(), metadata=[(name, "1"), (name, "1")])

    assert refusal.details["BadRequest"].field_violations[0].field == name


def test_only_a_pending_reservation_has_seconds_to_live(service: ReservationServiceStub) -> None:
    refusal = refused(service.reserve, reserving(status=proto.CONFIRMED), metadata=[("ttl-seconds", "60")])

    assert refusal.details["BadRequest"].field_violations[0].field == "ttl-seconds"


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_accepted_where_text_belongs(service: ReservationServiceStub, db: Db, text: str) -> None:
    made = service.reserve(reserving(user_id=text, resource_id=text, note=text)).reservation

    assert (made.user_id, made.resource_id, made.note) == (text, text, text)
    assert the(db, made.id).sku == text
    assert [*service.Query(proto.QueryRequest(user_id=text, resource_id=text))] == [made]


@pytest.mark.parametrize(
    "message", [b"\xff", b"\x0a\x05abc", b"\x0a\x04\x12\x02\xc3\x28", b"nonsense"], ids=["tag", "cut", "utf-8", "text"]
)
def test_bytes_that_are_no_message_are_refused(served_grpc: ServedGrpc, message: bytes) -> None:
    with grpc.insecure_channel(served_grpc.address) as channel:
        refusal = refused(channel.unary_unary("/ReservationService/reserve"), message)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.details["BadRequest"].field_violations[0].field == "request"


def test_a_call_without_a_message_is_refused(served_grpc: ServedGrpc) -> None:
    with grpc.insecure_channel(served_grpc.address) as channel:
        refusal = refused(channel.stream_unary("/ReservationService/reserve"), iter(()))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_is_too_large_is_refused(served_grpc: ServedGrpc) -> None:
    with grpc.insecure_channel(served_grpc.address) as channel:
        refusal = refused(channel.unary_unary("/ReservationService/reserve"), b"x" * 65_537)

    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_unknown_method_is_unimplemented(served_grpc: ServedGrpc) -> None:
    with grpc.insecure_channel(served_grpc.address) as channel:
        for method in ("/ReservationService/Reserve", "/reservation.ReservationService/reserve", "/x"):
            assert refused(channel.unary_unary(method), b"").code is grpc.StatusCode.UNIMPLEMENTED
