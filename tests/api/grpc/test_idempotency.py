"""The same call twice: one effect and one answer, as over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest
from sqlalchemy import func, select

from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from domain.idempotency import requests
from domain.outbox.table import outbox
from domain.reservations.table import history, reservations
from tests.api.grpc.requests import hour, refused, reserving
from tests.support.builders import Db
from tests.support.grpc_process import serving_grpc

KEYED = [("idempotency-key", "k")]

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def count(db: Db, table: Any) -> int:
    with db() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def call(method: Any, request: Any, *more: tuple[str, str]) -> tuple[Any, bool]:
    """Call a method under the key. Return the answer, and whether it was marked as a repeated one."""
    answer, made = method.with_call(request, metadata=[*KEYED, *more])
    return answer, ("idempotency-replayed", "true") in made.trailing_metadata()


def test_a_repeated_reserve_has_one_effect_and_the_same_answer(service: ReservationServiceStub, db: Db) -> None:
    first, second = (call(service.reserve, reserving(note="Late")) for _ in range(2))

    assert (first, second) == ((first[0], False), (first[0], True))
    assert count(db, reservations) == 1


@pytest.mark.parametrize("quoted", ['"k"', "k"])
def test_a_quoted_key_is_the_same_key(service: ReservationServiceStub, db: Db, quoted: str) -> None:
    call(service.reserve, reserving())

    service.reserve(reserving(), metadata=[("idempotency-key", quoted)])

    assert count(db, reservations) == 1


def test_a_repeated_confirm_gets_the_answer_to_the_first_one(service: ReservationServiceStub, db: Db) -> None:
    """Without a key, the second one is refused: it is confirmed already."""
    made = service.reserve(reserving()).reservation

    first, second = (call(service.confirm, proto.ConfirmRequest(id=made.id)) for _ in range(2))

    assert first[0] == second[0] and second[1]
    assert count(db, history) == 2


def test_repeated_updates_and_cancellations_have_one_effect(service: ReservationServiceStub, db: Db) -> None:
    made = service.reserve(reserving()).reservation

    for method, request in (
        (service.update, proto.UpdateRequest(id=made.id, note="Late")),
        (service.cancel, proto.CancelRequest(id=made.id)),
    ):
        first, second = (call(method, request) for _ in range(2))
        assert first[0] == second[0] and second[1]
    assert count(db, history) == 3


@pytest.mark.parametrize(
    ("request_", "metadata"), [(reserving(note="other"), []), (reserving(), [("ttl-seconds", "60")])]
)
def test_a_key_that_is_used_for_another_call_is_refused(
    service: ReservationServiceStub, db: Db, request_: proto.ReserveRequest, metadata: list[tuple[str, str]]
) -> None:
    call(service.reserve, reserving())

    refusal = refused(service.reserve, request_, metadata=[*KEYED, *metadata])

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.details["ErrorInfo"].reason == "IDEMPOTENCY_KEY_REUSED"
    assert count(db, reservations) == 1


def test_keys_belong_to_a_client_and_a_method(service: ReservationServiceStub, db: Db) -> None:
    made, _ = call(service.reserve, reserving(), ("x-client-id", "shop"))
    other = call(service.reserve, reserving(1, 2), ("x-client-id", "desk"))
    confirmed = call(service.confirm, proto.ConfirmRequest(id=made.reservation.id), ("x-client-id", "shop"))

    assert not other[1] and not confirmed[1]
    with db() as session:
        assert session.scalars(select(reservations.c.client_id).order_by(reservations.c.starts_at)).all() == [
            "shop",
            "desk",
        ]


def test_a_key_over_http_is_another_key_in_the_same_table(
    service: ReservationServiceStub, api: httpx.Client, db: Db
) -> None:
    """Their answers have different formats."""
    call(service.reserve, reserving())
    body = {"sku": "room-1", "quantity": 1, "start": "2031-01-01T00:00:00Z", "end": "2031-01-02T00:00:00Z"}

    over_http = api.post("/reservations", json=body, headers={"Idempotency-Key": "k"})

    assert over_http.status_code == 201
    assert (count(db, requests), count(db, reservations)) == (2, 2)


def test_a_refusal_is_not_remembered(service: ReservationServiceStub) -> None:
    made = service.reserve(reserving()).reservation
    assert refused(service.reserve, reserving(), metadata=KEYED).code is grpc.StatusCode.FAILED_PRECONDITION
    service.cancel(proto.CancelRequest(id=made.id))

    assert call(service.reserve, reserving())[0].reservation.status == proto.PENDING


def test_duplicates_at_once_have_one_effect(service: ReservationServiceStub, db: Db) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = [*threads.map(lambda _: call(service.reserve, reserving()), range(64))]

    assert len({answer.reservation.id for answer, _ in answers}) == 1
    assert [replayed for _, replayed in answers].count(False) == 1
    assert count(db, reservations) == 1


def test_keys_are_required_if_the_operator_wants_that(db: Db) -> None:
    with serving_grpc(REQUIRE_IDEMPOTENCY_KEYS="true") as served, served.calling() as service:
        made = service.reserve(reserving(), metadata=KEYED).reservation
        refusals = [
            refused(service.reserve, reserving(1, 2)),
            refused(service.confirm, proto.ConfirmRequest(id=made.id)),
            refused(service.update, proto.UpdateRequest(id=made.id)),
            refused(service.cancel, proto.CancelRequest(id=made.id)),
        ]
        read = service.get(proto.GetRequest(id=made.id)).reservation

    fields = [refusal.details["BadRequest"].field_violations[0].field for refusal in refusals]
    assert fields == ["idempotency-key"] * 4
    assert read.start == hour(0)


def test_every_call_has_an_id_that_its_events_have_too(service: ReservationServiceStub, db: Db) -> None:
    _, sent = service.reserve.with_call(reserving(), metadata=[("x-request-id", "call-7"), ("traceparent", TRACE)])
    _, chosen = service.reserve.with_call(reserving(1, 2))
    refusal = refused(service.reserve, reserving(), metadata=[("x-request-id", "call-8")])

    assert dict(sent.trailing_metadata())["x-request-id"] == "call-7"
    assert len(dict(chosen.trailing_metadata())["x-request-id"]) == 36
    assert refusal.trailers["x-request-id"] == "call-8"
    with db() as session:
        headers = session.scalars(select(outbox.c.headers).order_by(outbox.c.id)).first()
    assert headers == {"correlation_id": "call-7", "traceparent": TRACE}
