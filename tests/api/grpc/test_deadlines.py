"""Deadlines and cancelled calls: what has not begun by then is never done."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from sqlalchemy import func, select, text

from api.grpc.proto import reservation_pb2 as proto
from api.grpc.proto.reservation_pb2_grpc import ReservationServiceStub
from domain.items import Item
from domain.items import items as item_table
from domain.reservations.table import reservations
from tests.api.grpc.requests import UNKNOWN_ID, refused, reserving
from tests.support.builders import Db, a_calendar
from tests.support.waiting import wait_until, wait_until_blocked

DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED


def made(db: Db) -> int:
    with db() as session:
        return session.scalar(select(func.count()).select_from(reservations)) or 0


def lock(session: object, item: Item) -> None:
    session.execute(select(item_table).where(item_table.c.id == item.id).with_for_update())  # type: ignore[attr-defined]


def count(db: Db, condition: str) -> int:
    """Return how many other connections to the database meet a condition."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with db() as session:
        return int(session.execute(text(f"{others} AND {condition}")).scalar_one())


def wait_until_none_is_blocked(db: Db) -> None:
    """Wait until no set of the group commit waits for a lock. Later ones leave out what was given up before."""
    wait_until("none is blocked", lambda: not count(db, "wait_event_type = 'Lock'"))


def wait_until_none_is_open(db: Db) -> None:
    """Wait until no transaction is open. What was given up in the middle of one is done or undone then."""
    wait_until("none is open", lambda: not count(db, "xact_start IS NOT NULL"))


def test_a_reserve_whose_deadline_passes_in_the_queue_is_never_made(service: ReservationServiceStub, db: Db) -> None:
    room = a_calendar(db, sku="room-1")
    with db.begin() as session:
        lock(session, room)
        refusal = refused(service.reserve, reserving(), timeout=0.5)
        wait_until_none_is_blocked(db)
        later = service.reserve.future(reserving(5, 6))
        wait_until_blocked(db)
    # It is decided in the set that the first one would be in.
    later.result()

    assert refusal.code is DEADLINE
    assert made(db) == 1


def test_a_reserve_that_is_cancelled_in_the_queue_is_never_made(service: ReservationServiceStub, db: Db) -> None:
    room = a_calendar(db, sku="room-1")
    with db.begin() as session:
        lock(session, room)
        waiting = service.reserve.future(reserving())
        wait_until_blocked(db)
        waiting.cancel()
        # On the same connection, the server reads this call after that one's end.
        assert refused(service.get, proto.GetRequest(id=UNKNOWN_ID)).code is grpc.StatusCode.NOT_FOUND
        wait_until_none_is_blocked(db)
        later = service.reserve.future(reserving(5, 6))
        wait_until_blocked(db)
    later.result()

    assert made(db) == 1


@pytest.mark.parametrize("method", ["confirm", "update", "cancel"])
def test_a_change_whose_deadline_passes_while_others_are_served_is_answered(
    service: ReservationServiceStub, db: Db, method: str
) -> None:
    kept, other = (service.reserve(reserving(start, start + 1)).reservation for start in (0, 1))
    request = {"confirm": proto.ConfirmRequest, "update": proto.UpdateRequest, "cancel": proto.CancelRequest}[method]
    with db.begin() as session:
        session.execute(text("SELECT FROM reservations WHERE id = :id FOR UPDATE"), {"id": kept.id})
        began = time.monotonic()
        refusal = refused(getattr(service, method), request(id=kept.id), timeout=0.2)
        took = time.monotonic() - began
        getattr(service, method)(request(id=other.id))

    assert refusal.code is DEADLINE
    assert took < 5
    wait_until_none_is_open(db)


def test_an_item_that_stays_locked_is_busy_for_its_clients_and_free_for_others(
    service: ReservationServiceStub, db: Db
) -> None:
    locked = a_calendar(db, sku="locked")
    with db.begin() as session, ThreadPoolExecutor(40) as threads:
        lock(session, locked)
        waiting = [
            threads.submit(refused, service.reserve, reserving(n, n + 1, resource_id="locked")) for n in range(40)
        ]
        wait_until_blocked(db)
        for number in range(20):
            service.reserve(reserving(number, number + 1), timeout=5)
        refusals = [one.result() for one in waiting]

    assert {refusal.code for refusal in refusals} == {grpc.StatusCode.UNAVAILABLE}
    assert {refusal.details["RetryInfo"].retry_delay.seconds for refusal in refusals} <= {1, 2, 3}
    assert made(db) == 20


def test_calls_at_once_for_one_room_make_one_reservation(service: ReservationServiceStub, db: Db) -> None:
    def reserve(number: int) -> str:
        try:
            service.reserve(reserving(number % 4 / 4, 1 + number % 4 / 4, user_id=f"guest-{number}"))
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    with ThreadPoolExecutor(32) as threads:
        answers = [*threads.map(reserve, range(200))]

    assert (answers.count("OK"), answers.count("FAILED_PRECONDITION")) == (1, 199)
    assert made(db) == 1
