"""Query: the reservations that overlap a window of time, in order of their starts."""

import os
import signal
from itertools import pairwise
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import text

from api.grpc import query
from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from domain.reservations import Filter, Window
from domain.reservations.streaming import stream
from tests.api.grpc.requests import NOON, Moment, hour, refused, reserving
from tests.support.builders import Db, a_calendar, a_hold, an_item, let_lapse, the
from tests.support.grpc_process import ServedGrpc
from tests.support.waiting import wait_until_blocked


def reserved(service: ReservationServiceStub, *request: Moment, **fields: Any) -> proto.Reservation:
    made: proto.Reservation = service.reserve(reserving(*request, **fields)).reservation
    return made


def found(service: ReservationServiceStub, **wanted: Any) -> list[proto.Reservation]:
    return [*service.Query(proto.QueryRequest(**wanted))]


def test_all_of_them_are_found_in_order_of_their_starts(service: ReservationServiceStub, db: Db) -> None:
    a_hold(db, an_item(db))  # it has no time
    made = [reserved(service, start, start + 1, note=f"{start}") for start in (3, 0, 5)]

    assert found(service) == [made[1], made[0], made[2]]


@pytest.mark.parametrize(
    ("window", "starts"),
    [
        ({"start": hour(2)}, [1.5, 2, 3]),
        ({"end": hour(2)}, [0, 1.5]),
        ({"start": hour(1), "end": hour(1.5)}, []),
        ({"start": hour(1), "end": hour(1.75)}, [1.5]),
        ({"start": hour(0.999), "end": hour(1)}, [0]),
        ({"start": hour(2.1), "end": hour(2.2)}, [1.5, 2]),
        ({"start": Timestamp(seconds=-62_135_596_800), "end": Timestamp(seconds=253_402_300_799)}, [0, 1.5, 2, 3]),
    ],
    ids=repr,
)
def test_those_that_overlap_the_window_are_found(
    service: ReservationServiceStub, db: Db, window: dict[str, Timestamp], starts: list[float]
) -> None:
    """From noon they last until 1, from 1.5 until 2.5, from 2 until 3, from 3 until 4."""
    a_calendar(db, capacity=2, sku="room-1")
    for start, end in ((0, 1), (1.5, 2.5), (2, 3), (3, 4)):
        reserved(service, start, end)

    assert [one.start for one in found(service, **window)] == [hour(start) for start in starts]


def test_a_bound_between_two_microseconds_is_rounded_outwards(service: ReservationServiceStub) -> None:
    end = hour(1)
    end.nanos = 1_000
    reserved(service, 0, end)
    inside, after, before = hour(1), hour(1), hour(0)
    inside.nanos, after.nanos = 999, 1_001
    before.nanos = 1

    assert len(found(service, start=inside)) == 1
    assert len(found(service, start=after)) == 0
    assert len(found(service, end=before)) == 1


def test_the_longest_reservation_is_found_by_its_last_moment(service: ReservationServiceStub) -> None:
    longest = reserved(service, 0, 731 * 24)

    assert found(service, start=hour(731 * 24 - 0.001)) == [longest]
    assert found(service, start=hour(731 * 24)) == []


def test_they_are_found_by_user_and_by_resource(service: ReservationServiceStub) -> None:
    made = {
        (user, resource): reserved(service, index, index + 1, user_id=user, resource_id=resource)
        for index, (user, resource) in enumerate([("ann", "a"), ("ben", "a"), ("ann", "b")])
    }

    assert found(service, user_id="ann") == [made["ann", "a"], made["ann", "b"]]
    assert found(service, resource_id="a") == [made["ann", "a"], made["ben", "a"]]
    assert found(service, user_id="ben", resource_id="a", start=hour(1), end=hour(2)) == [made["ben", "a"]]
    assert found(service, resource_id="nowhere") == found(service, user_id="nobody") == []


def test_they_are_found_by_status_and_unknown_means_every_status(service: ReservationServiceStub, db: Db) -> None:
    statuses = [proto.PENDING, proto.CONFIRMED, proto.BLOCKED, proto.PENDING, proto.PENDING]
    made = [reserved(service, number, number + 1, status=status) for number, status in enumerate(statuses)]
    service.cancel(proto.CancelRequest(id=made[3].id))
    lapsed = service.reserve(reserving(9, 10), metadata=[("ttl-seconds", "60")]).reservation
    let_lapse(db, the(db, lapsed.id).id)

    by_status = {name: [one.id for one in found(service, status=name)] for name, _ in proto.ReservationStatus.items()}

    assert by_status["PENDING"] == [made[0].id, made[4].id]
    assert by_status["CONFIRMED"] == [made[1].id]
    assert by_status["BLOCKED"] == [made[2].id]
    assert by_status["CANCELLED"] == [made[3].id]
    assert by_status["EXPIRED"] == [lapsed.id]
    assert by_status["UNKNOWN"] == [one.id for one in (*made, lapsed)]


def many(db: Db, count: int, note: str | None = None) -> None:
    """Insert that many reservations of one calendar. Some of them start at the same time."""
    item = a_calendar(db, capacity=10, sku="hall")
    with db.begin() as session:
        session.execute(
            text("""
                INSERT INTO reservations (id, item_id, quantity, status, guest_id, note, starts_at, ends_at)
                SELECT gen_random_uuid(), :item, 1, 'CONFIRMED', 'guest-' || n % 100, :note,
                    :start + n / 3 * interval '1 minute', :start + (n / 3 + 5) * interval '1 minute'
                FROM generate_series(1, :count) AS n
            """),
            {"item": item.id, "start": NOON, "count": count, "note": note},
        )


def test_a_stream_over_many_transactions_skips_none_and_repeats_none(
    service: ReservationServiceStub, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(db, 2_500)
    monkeypatch.setattr(query, "PART", 7)
    monkeypatch.setattr(query, "SNAPSHOT_SECONDS", 0)

    read = [one for part in query.parts(db, Filter(), Window()) for one in part]

    assert len({one.id for one in read}) == 2_500
    places = [(one.starts_at, one.id) for one in read]
    assert all(first < second for first, second in pairwise(places))


def test_a_part_is_read_from_a_cursor(db: Db) -> None:
    """Otherwise all rows would be sent, and kept in memory, before the first one is read."""
    many(db, 100)

    with db() as session:
        parts = stream(session, Filter(), Window(), size=10)
        next(parts)
        cursors = session.execute(text("SELECT count(*) FROM pg_cursors WHERE name <> ''")).scalar_one()
        parts.close()  # type: ignore[attr-defined]

    assert cursors == 1


def test_a_stream_that_is_cancelled_gives_its_place_back(served_grpc: ServedGrpc, db: Db) -> None:
    many(db, 50_000)

    with served_grpc.calling() as service:
        for _ in range(5 * query.STREAMS):
            stream = service.Query(proto.QueryRequest(), timeout=30)
            next(stream)
            stream.cancel()
            assert next(service.Query(proto.QueryRequest(end=hour(1)), timeout=30)).user_id
    assert served_grpc.faults() == []


def test_one_client_does_not_get_all_streams(served_grpc: ServedGrpc, db: Db) -> None:
    many(db, 50_000)
    with served_grpc.calling() as service:
        greedy = [
            service.Query(proto.QueryRequest(), metadata=[("x-client-id", "greedy")]) for _ in range(query.STREAMS)
        ]
        answers = [_first(stream) for stream in greedy]
        other = next(service.Query(proto.QueryRequest(), metadata=[("x-client-id", "other")], timeout=30))
        for stream in greedy:
            stream.cancel()

    assert answers.count(None) == query.STREAMS // 2
    assert {code for code in answers if code} == {grpc.StatusCode.UNAVAILABLE}
    assert other.resource_id == "hall"


def test_two_clients_that_read_nothing_make_room_for_a_third(served_grpc: ServedGrpc, db: Db) -> None:
    many(db, 20_000, note="x" * 2_000)
    with served_grpc.calling() as service:
        greedy = [
            service.Query(proto.QueryRequest(), metadata=[("x-client-id", f"greedy-{number % 2}")])
            for number in range(query.STREAMS)
        ]
        assert {_first(stream) for stream in greedy} == {None}
        of_others = [
            service.Query(proto.QueryRequest(), metadata=[("x-client-id", f"other-{number}")]) for number in range(4)
        ]
        began = [_first(stream) for stream in of_others]
        for stream in (*greedy, *of_others):
            stream.cancel()

    assert began == [None] * 4


def test_a_stream_ends_if_the_database_hangs(served_grpc: ServedGrpc, service: ReservationServiceStub, db: Db) -> None:
    reserved(service)
    with db() as session:
        session.execute(text("LOCK TABLE reservations IN ACCESS EXCLUSIVE MODE"))
        stream = service.Query(proto.QueryRequest())
        wait_until_blocked(db)
        others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        (hanging,) = session.execute(text(others)).scalars().all()
        os.kill(hanging, signal.SIGSTOP)
    try:
        assert _first(stream) is grpc.StatusCode.UNAVAILABLE
        assert len(found(service)) == 1
    finally:
        os.kill(hanging, signal.SIGCONT)


def _first(stream: object) -> grpc.StatusCode | None:
    """Return why a stream does not begin, or None if it does."""
    try:
        next(stream)  # type: ignore[call-overload]
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return None


def test_a_stream_ends_with_its_deadline(served_grpc: ServedGrpc, db: Db) -> None:
    many(db, 50_000)

    with served_grpc.calling() as service:
        refusal = refused(lambda: [*service.Query(proto.QueryRequest(), timeout=0.3)])

    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert served_grpc.faults() == []
