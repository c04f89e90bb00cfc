"""The dispatcher: a destination that answers slowly takes no thread from the others."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from domain.fulfilment import CONFIRMATION
from domain.outbox import LANES, Delivered, Outcome, Row, Settlement, record
from domain.outbox.routes import Route, Routes
from domain.outbox.table import lanes
from tests.support.builders import Db, an_event, recorded, with_routes
from tests.support.outbox import FakeDestination, a_relay, an_aggregate, rows
from tests.support.waiting import wait_until
from worker.ordering.calling_threads import PREFIX
from worker.relay.dispatcher import Dispatcher
from worker.relay.relay import Claimed, Relay
from worker.relay.tally import Tally

#: Dispatching takes milliseconds where there is nothing to claim.
SOON_SECONDS = 5.0


class Hanging(FakeDestination):
    """A destination that answers for a whole batch, as a broker does, and only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self._may_answer = threading.Event()

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        self.called += [row.id for row in rows]
        assert self._may_answer.wait(60)
        return [Delivered()] * len(rows)

    def answer_all(self) -> None:
        self._may_answer.set()


@contextmanager
def dispatching(
    db: Db, shops: dict[str, FakeDestination], *, threads: int = 2, busy: Callable[[], None] = lambda: None
) -> Iterator[tuple[Db, Dispatcher]]:
    """A dispatcher to destinations that want every event, and the database in which these are recorded."""
    routes = {name: Route(name=name, url="null:") for name in shops}
    sessions = with_routes(db, Routes(list(routes.values())))
    relay = a_relay(sessions, routes, shops)
    dispatcher = Dispatcher(relay, threads=threads, busy=busy)
    try:
        yield sessions, dispatcher
    finally:
        relay.stopping.set()
        dispatcher.close(60)
        relay.close(grace_seconds=0)


def recorded_in(db: Db, *numbers: int) -> None:
    recorded(db, *(an_event(an_aggregate(lane)) for lane in numbers))


def test_however_many_destinations_hang_another_one_is_served(db: Db) -> None:
    hanging, healthy = [Hanging() for _ in range(5)], FakeDestination()
    shops: dict[str, FakeDestination] = {f"hanging-{number}": shop for number, shop in enumerate(hanging)}
    with dispatching(db, shops | {"healthy": healthy}) as (sessions, dispatcher):
        for sent in range(1, 6):
            recorded_in(sessions, *range(4))
            dispatcher.dispatch()
            wait_until("the healthy one has all events", lambda sent=sent: len(healthy.called) == 4 * sent)  # type: ignore[misc]
        assert all(len(shop.called) < 20 for shop in hanging)
        for shop in hanging:
            shop.answer_all()
        wait_until("all have all events", lambda: all(len(shop.called) == 20 for shop in hanging))


def test_lanes_that_become_due_while_all_threads_are_busy_are_drained_without_another_wake_up(db: Db) -> None:
    shop = Hanging()
    with dispatching(db, {"shop": shop}, threads=1) as (sessions, dispatcher):
        recorded_in(sessions, 0)
        dispatcher.dispatch()
        wait_until("the thread is busy", lambda: shop.called)
        recorded_in(sessions, 1, 2, 3)
        dispatcher.dispatch()
        shop.answer_all()
        wait_until("all were delivered", lambda: len(shop.called) == 4)


def test_a_lane_that_becomes_due_just_before_the_last_thread_ends_is_drained_without_another_wake_up(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, claim, recorded_late = FakeDestination(), Relay.claim, threading.Event()

    def claim_and_record(*arguments: Any) -> Any:
        """Record an event when a thread of the shop has found no lane, and has not ended yet."""
        claimed = claim(*arguments)
        in_shop = threading.current_thread().name.startswith(PREFIX)
        if in_shop and not claimed and not recorded_late.is_set():
            recorded_late.set()
            recorded_in(sessions, 1)
            dispatcher.dispatch()
        return claimed

    monkeypatch.setattr(Relay, "claim", claim_and_record)
    with dispatching(db, {"shop": shop}, threads=1) as (sessions, dispatcher):
        recorded_in(sessions, 0)
        dispatcher.dispatch()
        wait_until("both were delivered", lambda: len(shop.called) == 2, within=SOON_SECONDS)


def test_no_lane_is_claimed_for_a_destination_whose_threads_are_all_busy(db: Db) -> None:
    shop = Hanging()
    with dispatching(db, {"shop": shop}, threads=1) as (sessions, dispatcher):
        recorded_in(sessions, 0)
        dispatcher.dispatch()
        wait_until("the thread is busy", lambda: shop.called)
        recorded_in(sessions, 1)
        dispatching_again = threading.Thread(target=dispatcher.dispatch)
        dispatching_again.start()
        dispatching_again.join(SOON_SECONDS)
        assert not dispatching_again.is_alive(), "It claims and releases a lane that nobody can drain, again and again."
        assert claims_of(sessions, "shop", 1) == 0
        shop.answer_all()
        wait_until("both were delivered", lambda: len(shop.called) == 2)


def claims_of(db: Db, destination: str, lane: int) -> int:
    """Return how often a lane was claimed: each claim raises its epoch."""
    mine = select(lanes.c.epoch).where(lanes.c.destination == destination, lanes.c.lane == lane)
    with db.begin() as session:
        epoch: int = session.execute(mine).scalar_one()
    return epoch


def test_a_thread_that_meets_an_error_ends_and_the_next_wake_up_continues(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, broken = FakeDestination(), threading.Event()
    drain = Relay.drain

    def break_once(relay: Relay, claimed: Claimed) -> Tally:
        if not broken.is_set():
            broken.set()
            claimed.run.release(claimed.batch)
            raise OperationalError("", {}, Exception("the connection is lost"))
        return drain(relay, claimed)

    monkeypatch.setattr(Relay, "drain", break_once)
    with dispatching(db, {"shop": shop}, threads=1) as (sessions, dispatcher):
        recorded_in(sessions, 0)
        dispatcher.dispatch()
        wait_until("it broke, and the thread is free", lambda: broken.is_set() and dispatcher._free["shop"] == 1)
        dispatcher.dispatch()
        wait_until("the event was delivered", lambda: all(row.processed_at for row in rows(sessions)))


def test_a_thread_that_is_busy_for_long_calls_others_once(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.relay.dispatcher.BUSY_SECONDS", 0)
    called: list[int] = []
    shop = FakeDestination()
    with dispatching(db, {"shop": shop}, threads=1, busy=lambda: called.append(1)) as (sessions, dispatcher):
        recorded_in(sessions, *[0, 1, 2] * LANES)
        dispatcher.dispatch()
        wait_until("all were delivered", lambda: len(shop.called) == 3 * LANES)

    assert called == [1]


def test_closing_waits_for_calls_that_have_begun_and_for_no_longer_than_it_may(db: Db) -> None:
    shop = Hanging()
    with dispatching(db, {"shop": shop}) as (sessions, dispatcher):
        recorded_in(sessions, 0)
        dispatcher.dispatch()
        wait_until("the call has begun", lambda: shop.called)
        dispatcher._relay.stopping.set()
        dispatcher.close(0.1)
        assert not any(row.processed_at for row in rows(sessions))
        shop.answer_all()
        dispatcher.close(60)
        assert all(row.processed_at for row in rows(sessions))


def test_events_that_the_answers_to_a_step_have_recorded_are_delivered_at_once(db: Db) -> None:
    """There is no scheduler here, and nobody sends another wake-up."""

    class Confirming(FakeDestination):
        def apply(self, session: Session, settlement: Settlement) -> None:
            record(session, [an_event() for _ in settlement.processed], only_to_shop)

    shop, step = FakeDestination(), Confirming()
    only_to_shop = Routes([Route(name="shop", url="null:")])
    with dispatching(db, {"shop": shop, CONFIRMATION: step}) as (sessions, dispatcher):
        recorded(with_routes(db, Routes([Route(name=CONFIRMATION, url="null:")])), an_event())
        dispatcher.dispatch()
        wait_until("the shop has the event that followed", lambda: len(shop.called) == 1)
        wait_until("it is settled", lambda: all(row.processed_at for row in rows(sessions)))
