"""The confirmation service, asked over a real connection: its answers change reservations, and its troubles do not."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from domain import reservations
from domain.outbox.delivery.lanes import claim
from domain.outbox.operations import dead_letters, replay
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.routes import CONFIRMATION, STEPS, Route, Routes
from domain.outbox.table import destinations, outbox
from domain.reservations import Reservation
from domain.reservations.lifecycle import Status
from domain.reservations.table import history
from domain.reservations.table import reservations as table
from domain.runtime.database import now, sessions
from tests.support.builders import Db, a_hold, an_item, an_overdue_hold, available
from tests.support.operations import DEED
from tests.support.outbox import destination, registered, time_passes
from tests.support.servers import Server, a_server, saying, trickling
from worker.relay.concurrency_limits import Shares
from worker.relay.leases import Leases
from worker.relay.relay import Drain, Tally
from worker.steps.confirmation import Confirmation

TIMEOUT_SECONDS = 0.3
MAX_ATTEMPTS = 2


@pytest.fixture
def service() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
def drain(db: Db, service: Server) -> Iterator[Drain]:
    """A drain whose one destination is the service."""
    route = Route(name=CONFIRMATION, url=service.url, events=tuple(STEPS), max_attempts=MAX_ATTEMPTS, concurrency=1)
    here = sessions(db.kw["bind"], routes=Routes([route]))
    registered(here)
    stopping, leases = Event(), Leases(here)
    step = Confirmation(route, here, stopping, timeout_seconds=TIMEOUT_SECONDS)
    yield Drain(
        db=here,
        routes={CONFIRMATION: route},
        destinations={CONFIRMATION: step},
        leases=leases,
        shares=Shares([CONFIRMATION], 1),
    )
    leases.close()
    step.close()


def stands(drain: Drain, hold: Reservation) -> Reservation:
    with drain.db.begin() as session:
        return reservations.get(session, hold.id)


def asked(service: Server) -> list[tuple[str, str]]:
    """What the service was asked, and for which booking."""
    told = [json.loads(heard.body) for heard in service.heard]
    return [(one["event_type"], one["payload"]["booking_id"]) for one in told]


def test_a_yes_confirms(drain: Drain, service: Server) -> None:
    item = an_item(drain.db, quantity=5)
    hold = a_hold(drain.db, item, quantity=2)

    assert drain.run() == Tally(delivered=1)

    assert stands(drain, hold).status is Status.CONFIRMED
    assert available(drain.db, item) == 3
    assert asked(service) == [("reservation_confirm", str(hold.id))]
    (heard,) = service.heard
    payload = json.loads(heard.body)["payload"]
    assert (payload["sku"], payload["quantity"], payload["status"]) == (item.sku, 2, "PENDING")


def test_it_is_asked_under_a_key_that_never_changes(drain: Drain, service: Server) -> None:
    a_hold(drain.db, an_item(drain.db))
    service.answer = saying(408)
    drain.run(limit=1)
    time_passes(drain.db)
    service.answer = saying(200)
    drain.run()

    keys = {heard.headers["idempotency-key"] for heard in service.heard}
    ids = {json.loads(heard.body)["event_id"] for heard in service.heard}
    assert len(service.heard) == 2
    assert keys == ids and len(keys) == 1


@pytest.mark.parametrize("body", [b'{"reason": "full"}', b"", b"a\0b", b"\xff", b"x" * 1_000_000])
def test_a_no_cancels_and_gives_the_stock_back(drain: Drain, service: Server, body: bytes) -> None:
    item = an_item(drain.db, quantity=5)
    hold = a_hold(drain.db, item, quantity=2)
    service.answer = saying(422, body)

    assert drain.run() == Tally(delivered=1)

    after = stands(drain, hold)
    assert after.status is Status.CANCELLED
    assert after.cancellation_reason is not None
    assert after.cancellation_reason.startswith("the confirmation service refused: 422 Unprocessable")
    assert available(drain.db, item) == 5
    assert drain.run() == Tally(), "there is nothing to release"


@pytest.mark.parametrize(
    "answer",
    [saying(500), saying(503), saying(429, Retry_After="1"), trickling(b"", b"", every_seconds=0.02)],
    ids=["500", "503", "429", "time-out"],
)
def test_an_outage_costs_nothing_and_the_hold_stands(drain: Drain, service: Server, answer: object) -> None:
    hold = a_hold(drain.db, an_item(drain.db))
    service.answer = answer  # type: ignore[assignment]
    for _ in range(MAX_ATTEMPTS + 1):
        assert drain.run(limit=1) == Tally(waiting=1)
        time_passes(drain.db)
    assert stands(drain, hold).status is Status.PENDING

    service.answer = saying(200)
    drain.run()

    assert stands(drain, hold).status is Status.CONFIRMED


def test_after_the_last_attempt_the_hold_is_cancelled_and_the_service_told_to_let_go(
    drain: Drain, service: Server
) -> None:
    item = an_item(drain.db, quantity=5)
    hold = a_hold(drain.db, item, quantity=2)
    service.answer = saying(408, b"too slow")
    for _ in range(MAX_ATTEMPTS):
        drain.run(limit=1)
        time_passes(drain.db)

    after = stands(drain, hold)
    assert after.status is Status.CANCELLED
    assert after.cancellation_reason == "the confirmation service could not be asked: 408 Request Timeout: too slow"
    assert available(drain.db, item) == 5
    service.answer = saying(200)
    drain.run()
    assert asked(service)[-1] == ("reservation_release", str(hold.id))


def test_a_hold_that_lapsed_is_not_asked_for_but_released(drain: Drain, service: Server) -> None:
    """An earlier try may have reached the service, and its answer may have been lost."""
    item = an_item(drain.db, quantity=5)
    hold = an_overdue_hold(drain.db, item, quantity=2)

    drain.run()
    drain.run()

    assert stands(drain, hold).status is Status.EXPIRED
    assert available(drain.db, item) == 5
    assert asked(service) == [("reservation_release", str(hold.id))]


def test_an_answer_that_comes_too_late_does_not_confirm_and_is_released(drain: Drain, service: Server) -> None:
    item = an_item(drain.db, quantity=5)
    hold = a_hold(drain.db, item, quantity=2)

    def thinks_too_long(handler: BaseHTTPRequestHandler) -> None:
        with drain.db.begin() as session:
            session.execute(update(table).where(table.c.id == hold.id).values(expires_at=now(session)))
        service.answer = saying(200)
        service.answer(handler)

    service.answer = thinks_too_long
    drain.run()
    drain.run()

    assert stands(drain, hold).status is Status.EXPIRED
    assert available(drain.db, item) == 5
    assert asked(service) == [("reservation_confirm", str(hold.id)), ("reservation_release", str(hold.id))]


def test_a_hold_that_was_confirmed_by_hand_is_not_asked_for(drain: Drain, service: Server) -> None:
    hold = a_hold(drain.db, an_item(drain.db))
    with drain.db.begin() as session:
        reservations.change(session, hold.id, Status.CONFIRMED)

    drain.run()

    assert stands(drain, hold).version == 2
    assert service.heard == []


def test_a_hold_that_was_cancelled_meanwhile_is_released_once(drain: Drain, service: Server) -> None:
    hold = a_hold(drain.db, an_item(drain.db))

    def cancelled_meanwhile(handler: BaseHTTPRequestHandler) -> None:
        with drain.db.begin() as session:
            reservations.change(session, hold.id, Status.CANCELLED)
        service.answer = saying(200)
        service.answer(handler)

    service.answer = cancelled_meanwhile
    drain.run()
    drain.run()

    assert asked(service) == [("reservation_confirm", str(hold.id)), ("reservation_release", str(hold.id))]


def test_a_release_that_is_refused_is_dead_and_changes_nothing(drain: Drain, service: Server) -> None:
    hold = an_overdue_hold(drain.db, an_item(drain.db))
    service.answer = saying(404)

    drain.run()
    drain.run()

    assert (stands(drain, hold).status, stands(drain, hold).version) == (Status.EXPIRED, 2)
    with drain.db.begin() as session:
        dead = select(outbox.c.type).where(outbox.c.dead_at.is_not(None))
        assert session.execute(dead).scalars().all() == ["reservation_release"]


def test_a_hold_that_lapsed_does_not_show_that_the_service_is_up(drain: Drain, service: Server) -> None:
    """Nobody was asked: with the service still down, its breaker stays as it is."""
    service.answer = saying(503)
    a_hold(drain.db, an_item(drain.db))
    drain.run()
    with drain.db.begin() as session:
        session.execute(update(table).values(expires_at=table.c.created_at))
    time_passes(drain.db)
    service.heard.clear()

    drain.run()

    state = destination(drain.db, CONFIRMATION)
    assert (state.failures >= 1, state.recovered_at) == (True, None)
    assert len(service.heard) <= 1, "the release, as the next probe"


def test_many_holds_are_answered_in_one_batch_each_for_itself(drain: Drain, service: Server) -> None:
    item = an_item(drain.db, quantity=100)
    holds = [a_hold(drain.db, item) for _ in range(20)]
    refused = {str(hold.id) for hold in holds[::4]}

    def choosy(handler: BaseHTTPRequestHandler) -> None:
        saying(422 if asked(service)[-1][1] in refused else 200)(handler)

    service.answer = choosy

    assert drain.run() == Tally(delivered=20)

    assert _by_status(drain, Status.CANCELLED) == {UUID(one) for one in refused}
    assert len(_by_status(drain, Status.CONFIRMED)) == 15
    assert available(drain.db, item) == 85


def _by_status(drain: Drain, status: Status) -> set[UUID]:
    with drain.db.begin() as session:
        found = session.execute(select(table.c.id).where(table.c.status == status))
        return set(found.scalars())


def test_a_lost_lease_confirms_nothing(drain: Drain, service: Server) -> None:
    hold = a_hold(drain.db, an_item(drain.db))

    def stolen(handler: BaseHTTPRequestHandler) -> None:
        time_passes(drain.db)
        with drain.db.begin() as session:
            assert claim(session, [CONFIRMATION], "thief") is not None
        saying(200)(handler)

    service.answer = stolen

    assert drain.run() == Tally(fenced=1)

    assert stands(drain, hold).status is Status.PENDING
    with drain.db.begin() as session:
        assert session.execute(select(func.count()).select_from(history)).scalar_one() == 1
        assert session.execute(select(destinations.c.failures).where(destinations.c.name == CONFIRMATION)).scalar() == 0


def gave_up(drain: Drain, service: Server) -> Reservation:
    """A hold for which no answer was to be had: its row is dead, it is cancelled, and the service was told."""
    hold = a_hold(drain.db, an_item(drain.db))
    service.answer = saying(408)
    for _ in range(MAX_ATTEMPTS):
        drain.run(limit=1)
        time_passes(drain.db)
    service.answer = saying(200)
    drain.run()
    service.heard.clear()
    return hold


def replayed(drain: Drain) -> int:
    with drain.db.begin() as session:
        return replay.send_again(session, Batch(selection=dead_letters.ALL, deed=DEED)).rows


def test_the_replay_of_a_question_that_was_given_up_asks_nothing_and_lets_go_once_more(
    drain: Drain, service: Server
) -> None:
    hold = gave_up(drain, service)
    before = stands(drain, hold)
    assert before.status is Status.CANCELLED

    assert replayed(drain) == 1
    assert drain.run() == Tally(delivered=2)

    assert asked(service) == [("reservation_release", str(hold.id))]
    assert stands(drain, hold) == before


def test_the_replay_of_a_question_whose_hold_still_stands_asks_it(drain: Drain, service: Server) -> None:
    """It died without its compensation, as something was wrong with the house."""
    hold = a_hold(drain.db, an_item(drain.db))
    with drain.db.begin() as session:
        session.execute(update(outbox).values(dead_at=func.now()))

    assert replayed(drain) == 1
    drain.run()

    assert asked(service) == [("reservation_confirm", str(hold.id))]
    assert stands(drain, hold).status is Status.CONFIRMED
