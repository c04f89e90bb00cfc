"""The confirmation step, with a real server: its answers change reservations, and its failures do not."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from domain import outbox, reservations
from domain.fulfilment import CONFIRMATION, STEP_TYPES
from domain.outbox import CommitHorizon, Route, Routes
from domain.outbox.delivery.history import RECOVERED_AFTER
from domain.outbox.operations import dead_letters, replay
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.table import destinations
from domain.outbox.table import outbox as outbox_rows
from domain.reservations import Reservation
from domain.reservations.lifecycle import Status
from domain.reservations.table import history
from domain.reservations.table import reservations as table
from domain.runtime.database import now
from domain.runtime.errors import ConfigurationError
from tests.support.builders import (
    Db,
    a_calendar,
    a_hold,
    a_request,
    a_time_hold,
    an_item,
    an_overdue_hold,
    available,
    hours,
    reserve,
    routes_of,
    some_settings,
    with_routes,
)
from tests.support.http_server import Server, a_server, saying, trickling
from tests.support.operations import ENTRY
from tests.support.outbox import a_relay, destination, states, time_passes
from worker.ordering.pace import Pace
from worker.relay.relay import Relay
from worker.relay.tally import Tally
from worker.steps.confirmation import ConfirmationStep

TIMEOUT_SECONDS = 0.3
MAX_ATTEMPTS = 2


@pytest.fixture
def service() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
def relay(db: Db, service: Server) -> Iterator[Relay]:
    """A relay whose one destination is the service."""
    route = Route(
        name=CONFIRMATION, url=service.url, events=tuple(STEP_TYPES), max_attempts=MAX_ATTEMPTS, concurrency=1
    )
    here = with_routes(db, Routes([], [route], STEP_TYPES))
    relay = a_relay(here, {CONFIRMATION: route}, {CONFIRMATION: a_step(route, here)})
    yield relay
    relay.close(grace_seconds=0)


def a_step(route: Route, db: Db) -> ConfirmationStep:
    settings = some_settings(confirmation_timeout_seconds=TIMEOUT_SECONDS)
    return ConfirmationStep(route, settings, db, routes_of(db), Pace(Event()))


def current(relay: Relay, hold: Reservation) -> Reservation:
    """The reservation as it is now."""
    with relay.db.begin() as session:
        return reservations.get(session, hold.id)


def asked(service: Server) -> list[tuple[str, str]]:
    """Return what the service was asked, and for which booking."""
    events = [json.loads(request.body) for request in service.requests]
    return [(one["event_type"], one["payload"]["booking_id"]) for one in events]


def test_a_positive_answer_confirms_the_reservation(relay: Relay, service: Server) -> None:
    item = an_item(relay.db, quantity=5)
    hold = a_hold(relay.db, item, quantity=2)

    assert relay.run() == Tally(tried=1, processed=1)

    assert current(relay, hold).status is Status.CONFIRMED
    assert available(relay.db, item) == 3
    assert asked(service) == [("reservation_confirm", str(hold.id))]
    (request,) = service.requests
    payload = json.loads(request.body)["payload"]
    assert (payload["sku"], payload["quantity"], payload["status"]) == (item.sku, 2, "PENDING")


def test_the_service_is_asked_about_a_hold_that_never_lapses(relay: Relay, service: Server) -> None:
    hold = a_time_hold(relay.db, a_calendar(relay.db), hours(9, 10), hold_for=None)

    relay.run()

    assert asked(service) == [("reservation_confirm", str(hold.id))]
    assert current(relay, hold).status is Status.CONFIRMED


def test_every_attempt_has_the_same_idempotency_key(relay: Relay, service: Server) -> None:
    a_hold(relay.db, an_item(relay.db))
    service.answer = saying(408)
    relay.run(limit=1)
    time_passes(relay.db)
    service.answer = saying(200)
    relay.run()

    keys = {request.headers["idempotency-key"] for request in service.requests}
    ids = {json.loads(request.body)["event_id"] for request in service.requests}
    assert len(service.requests) == 2
    assert keys == ids and len(keys) == 1


@pytest.mark.parametrize("body", [b'{"reason": "full"}', b"", b"a\0b", b"\xff", b"x" * 1_000_000])
def test_a_refusal_rejects_the_reservation_and_gives_the_stock_back(relay: Relay, service: Server, body: bytes) -> None:
    item = an_item(relay.db, quantity=5)
    hold = a_hold(relay.db, item, quantity=2)
    service.answer = saying(422, body)

    assert relay.run() == Tally(tried=1, processed=1)

    after = current(relay, hold)
    assert after.status is Status.REJECTED
    assert after.cancellation_reason == "confirmation-declined", "whatever the service has written"
    assert available(relay.db, item) == 5
    assert relay.run() == Tally(), "there is nothing to release"


@pytest.mark.parametrize(
    "answer",
    [saying(500), saying(503), saying(429, Retry_After="1"), trickling(b"", b"", every_seconds=0.02)],
    ids=["500", "503", "429", "time-out"],
)
def test_an_outage_spends_no_attempt_and_the_hold_stays_pending(relay: Relay, service: Server, answer: object) -> None:
    hold = a_hold(relay.db, an_item(relay.db))
    service.answer = answer  # type: ignore[assignment]
    for _ in range(MAX_ATTEMPTS + 1):
        assert relay.run(limit=1) == Tally(tried=1, waiting=1)
        time_passes(relay.db)
    assert current(relay, hold).status is Status.PENDING

    service.answer = saying(200)
    relay.run()

    assert current(relay, hold).status is Status.CONFIRMED


def test_the_event_that_follows_from_an_answer_names_the_request_that_the_service_was_asked_for(
    relay: Relay, service: Server
) -> None:
    cause = {"correlation_id": "r-1", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    (_,) = reserve(relay.db, a_request(an_item(relay.db), headers=cause))
    with relay.db.begin() as session:
        session.execute(update(outbox_rows).values(dead_at=func.now()))
    replayed(relay)

    def expires_meanwhile(handler: BaseHTTPRequestHandler) -> None:
        with relay.db.begin() as session:
            session.execute(update(table).values(expires_at=func.now()))
        saying(200)(handler)

    service.answer = expires_meanwhile
    relay.run()

    with relay.db.begin() as session:
        release = select(outbox_rows.c.headers).where(outbox_rows.c.type == "reservation_release")
        assert session.execute(release).scalars().all() == [cause], "the release is not itself a replay"


def test_after_the_last_attempt_the_hold_is_cancelled_and_the_service_is_asked_to_release_it(
    relay: Relay, service: Server
) -> None:
    item = an_item(relay.db, quantity=5)
    hold = a_hold(relay.db, item, quantity=2)
    refused_alone(relay, service, hold)

    after = current(relay, hold)
    assert after.status is Status.CANCELLED
    assert after.cancellation_reason == "confirmation-unavailable"
    assert available(relay.db, item) == 5
    service.answer = saying(200)
    relay.run()
    assert asked(service)[-1] == ("reservation_release", str(hold.id))


def refused_alone(relay: Relay, service: Server, hold: Reservation) -> None:
    """Let the service fail for this hold and for no other, until it is given up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        saying(500 if str(hold.id).encode() in service.requests[-1].body else 200)(handler)

    service.answer = answer
    others = an_item(relay.db, quantity=1_000)
    # The hold is in doubt first, until the destination has recovered; then its attempts are spent.
    for _ in range(MAX_ATTEMPTS + 2):
        for _ in range(RECOVERED_AFTER):
            a_hold(relay.db, others)
        relay.run()
        time_passes(relay.db)


def test_no_outage_of_any_shape_cancels_a_hold(relay: Relay, service: Server) -> None:
    holds = [a_hold(relay.db, an_item(relay.db)) for _ in range(3)]
    for status in (401, 403, 404, 429, 500, 502, 503, 504):
        service.answer = saying(status)
        for _ in range(MAX_ATTEMPTS + 1):
            relay.run()
            time_passes(relay.db)

    assert {current(relay, hold).status for hold in holds} == {Status.PENDING}
    service.answer = saying(200)
    relay.run()
    assert {current(relay, hold).status for hold in holds} == {Status.CONFIRMED}


def test_the_service_is_not_asked_to_confirm_an_expired_hold_but_to_release_it(relay: Relay, service: Server) -> None:
    """An earlier attempt may have reached the service, and its answer may have been lost."""
    item = an_item(relay.db, quantity=5)
    hold = an_overdue_hold(relay.db, item, quantity=2)

    relay.run()
    relay.run()

    assert current(relay, hold).status is Status.EXPIRED
    assert available(relay.db, item) == 5
    assert asked(service) == [("reservation_release", str(hold.id))]


def test_an_answer_after_the_expiry_does_not_confirm_and_the_service_is_asked_to_release(
    relay: Relay, service: Server
) -> None:
    item = an_item(relay.db, quantity=5)
    hold = a_hold(relay.db, item, quantity=2)

    def answers_too_late(handler: BaseHTTPRequestHandler) -> None:
        with relay.db.begin() as session:
            session.execute(update(table).where(table.c.id == hold.id).values(expires_at=now(session)))
        service.answer = saying(200)
        service.answer(handler)

    service.answer = answers_too_late
    relay.run()
    relay.run()

    assert current(relay, hold).status is Status.EXPIRED
    assert available(relay.db, item) == 5
    assert asked(service) == [("reservation_confirm", str(hold.id)), ("reservation_release", str(hold.id))]


def test_the_service_is_not_asked_about_a_hold_that_was_confirmed_by_hand(relay: Relay, service: Server) -> None:
    hold = a_hold(relay.db, an_item(relay.db))
    with relay.db.begin() as session:
        reservations.change(session, hold.id, Status.CONFIRMED, routes=routes_of(relay.db))

    relay.run()

    assert current(relay, hold).version == 2
    assert service.requests == []


def test_a_hold_that_was_cancelled_during_the_call_is_released_once(relay: Relay, service: Server) -> None:
    hold = a_hold(relay.db, an_item(relay.db))

    def cancels_meanwhile(handler: BaseHTTPRequestHandler) -> None:
        with relay.db.begin() as session:
            reservations.change(session, hold.id, Status.CANCELLED, routes=routes_of(relay.db))
        service.answer = saying(200)
        service.answer(handler)

    service.answer = cancels_meanwhile
    relay.run()
    relay.run()

    assert asked(service) == [("reservation_confirm", str(hold.id)), ("reservation_release", str(hold.id))]


@pytest.mark.parametrize("status", [404, 410])
def test_a_service_that_does_not_know_a_hold_has_released_it(relay: Relay, service: Server, status: int) -> None:
    an_overdue_hold(relay.db, an_item(relay.db))
    service.answer = saying(status)

    relay.run()
    relay.run()

    assert states(relay.db) == ["processed"] * 2


def test_a_refused_release_is_a_dead_letter_and_changes_no_reservation(relay: Relay, service: Server) -> None:
    hold = an_overdue_hold(relay.db, an_item(relay.db))
    service.answer = saying(422)

    relay.run()
    relay.run()

    assert (current(relay, hold).status, current(relay, hold).version) == (Status.EXPIRED, 2)
    with relay.db.begin() as session:
        dead = select(outbox_rows.c.type).where(outbox_rows.c.dead_at.is_not(None))
        assert session.execute(dead).scalars().all() == ["reservation_release"]


def test_an_expired_hold_does_not_close_the_circuit_breaker(relay: Relay, service: Server) -> None:
    """The service was not called, so nothing shows that it is up again."""
    service.answer = saying(503)
    a_hold(relay.db, an_item(relay.db))
    relay.run()
    with relay.db.begin() as session:
        session.execute(update(table).values(expires_at=table.c.created_at))
    time_passes(relay.db)
    service.requests.clear()

    relay.run()

    state = destination(relay.db, CONFIRMATION)
    assert (state.failures >= 1, state.recovered_at) == (True, None)
    assert len(service.requests) <= 1, "the release, as the next probe"


def test_a_batch_of_holds_has_an_answer_for_each_hold(relay: Relay, service: Server) -> None:
    item = an_item(relay.db, quantity=100)
    holds = [a_hold(relay.db, item) for _ in range(20)]
    refused = {str(hold.id) for hold in holds[::4]}

    def refuses_some(handler: BaseHTTPRequestHandler) -> None:
        saying(422 if asked(service)[-1][1] in refused else 200)(handler)

    service.answer = refuses_some

    assert relay.run() == Tally(tried=20, processed=20)

    assert by_status(relay, Status.REJECTED) == {UUID(one) for one in refused}
    assert len(by_status(relay, Status.CONFIRMED)) == 15
    assert available(relay.db, item) == 85


def by_status(relay: Relay, status: Status) -> set[UUID]:
    with relay.db.begin() as session:
        found = session.execute(select(table.c.id).where(table.c.status == status))
        return set(found.scalars())


def test_a_worker_that_lost_its_lease_confirms_nothing(relay: Relay, service: Server) -> None:
    hold = a_hold(relay.db, an_item(relay.db))

    def another_worker_claims(handler: BaseHTTPRequestHandler) -> None:
        time_passes(relay.db)
        with relay.db.begin() as session:
            assert outbox.claim(session, [CONFIRMATION], "another worker", CommitHorizon()) is not None
        saying(200)(handler)

    service.answer = another_worker_claims

    assert relay.run() == Tally(tried=1, fenced=1)

    assert current(relay, hold).status is Status.PENDING
    with relay.db.begin() as session:
        assert session.execute(select(func.count()).select_from(history)).scalar_one() == 1
        assert session.execute(select(destinations.c.failures).where(destinations.c.name == CONFIRMATION)).scalar() == 0


def given_up(relay: Relay, service: Server) -> Reservation:
    """A hold without an answer: its row is a dead letter, it is cancelled, and the service was asked to release it."""
    hold = a_hold(relay.db, an_item(relay.db))
    refused_alone(relay, service, hold)
    service.answer = saying(200)
    relay.run()
    service.requests.clear()
    return hold


def replayed(relay: Relay) -> int:
    with relay.db.begin() as session:
        return replay.replay(session, Batch(selection=dead_letters.ALL, entry=ENTRY), STEP_TYPES).rows


def test_the_replay_of_a_request_that_was_given_up_only_asks_to_release_the_hold_again(
    relay: Relay, service: Server
) -> None:
    hold = given_up(relay, service)
    before = current(relay, hold)
    assert before.status is Status.CANCELLED

    assert replayed(relay) == 1
    assert relay.run() == Tally(tried=2, processed=2)

    assert asked(service) == [("reservation_release", str(hold.id))]
    assert current(relay, hold) == before


def test_the_replay_of_a_request_whose_hold_is_still_pending_asks_to_confirm_it(relay: Relay, service: Server) -> None:
    """The row became a dead letter without its compensation, because of a fault of our own."""
    hold = a_hold(relay.db, an_item(relay.db))
    with relay.db.begin() as session:
        session.execute(update(outbox_rows).values(dead_at=func.now()))

    assert replayed(relay) == 1
    relay.run()

    assert asked(service) == [("reservation_confirm", str(hold.id))]
    assert current(relay, hold).status is Status.CONFIRMED


def test_a_url_that_can_not_be_used_is_refused(db: Db) -> None:
    route = Route(name=CONFIRMATION, url="http://xn--\u00fc.example/")

    with pytest.raises(ConfigurationError, match=r"^CONFIRMATION_URL: it can't be used: "):
        a_step(route, db)
