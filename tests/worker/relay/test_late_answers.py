"""An event whose call hangs keeps neither its lane nor a thread, and is settled as soon as the call ends."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import OperationalError

from domain.outbox import Delivered, Outcome, Row
from domain.outbox.table import calls, outbox
from tests.conftest import OpenRelay
from tests.domain.outbox.conftest import clock, set_shop
from tests.support.outbox import FakeDestination, an_aggregate, destination, recorded_for, row, states
from tests.support.waiting import wait_until, wait_until_blocked
from tests.worker.test_isolate import Step
from worker.relay.relay import Relay
from worker.relay.tally import Tally


class HangingFor(FakeDestination):
    """A destination that answers some events only when it may, and all others at once."""

    def __init__(self, *hanging: int) -> None:
        super().__init__(self._wait, concurrency=2)
        self._hanging = hanging
        self.may_answer = threading.Event()

    def _wait(self, row: Row) -> Outcome:
        if row.id in self._hanging:
            assert self.may_answer.wait(60)
        return Delivered()


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as thread:
        yield thread


def test_a_hanging_event_holds_its_reservation_and_nobody_else(
    relay_to: OpenRelay, elsewhere: ThreadPoolExecutor
) -> None:
    shop, aggregate = HangingFor(1), an_aggregate()
    relay = relay_to(shop)
    recorded_for(relay.db, aggregate, an_aggregate(), aggregate)

    run = elsewhere.submit(relay.run)
    wait_until("its neighbour is settled", lambda: states(relay.db) == ["waiting", "processed", "waiting"])
    recorded_for(relay.db, aggregate, an_aggregate())
    wait_until("its later neighbour is settled", lambda: drained(relay) and states(relay.db, 5) == ["processed"])
    assert states(relay.db, 1, 3, 4) == ["waiting"] * 3
    shop.may_answer.set()
    run.result()


def late_calls(relay: Relay) -> int:
    """Return how many calls have outlasted their batches and are not settled."""
    with relay.db.begin() as session:
        return session.execute(select(func.count()).select_from(calls)).scalar_one()


def outlasting(relay: Relay, elsewhere: ThreadPoolExecutor, *, calls: int = 1) -> Future[Tally]:
    """Let the relay run elsewhere, and return that as soon as so many calls have outlasted their batch."""
    run = elsewhere.submit(relay.run)
    wait_until(f"{calls} calls outlast their batch", lambda: late_calls(relay) == calls)
    return run


def drained(relay: Relay) -> bool:
    """Drain a lane if one is free. The other thread may do it first."""
    if claimed := relay.claim(relay.destinations):
        relay.drain(claimed)
    return True


def test_when_the_call_ends_its_reservation_continues_in_order(
    relay_to: OpenRelay, elsewhere: ThreadPoolExecutor
) -> None:
    shop, aggregate = HangingFor(1), an_aggregate()
    relay = relay_to(shop)
    recorded_for(relay.db, aggregate, an_aggregate(), aggregate, aggregate)

    run = elsewhere.submit(relay.run)
    wait_until("its neighbour is settled", lambda: states(relay.db, 2) == ["processed"])
    shop.may_answer.set()

    assert run.result().processed == 4
    assert states(relay.db) == ["processed"] * 4
    assert [one for one in shop.called if one != 2] == [1, 3, 4]


def test_nothing_more_is_claimed_for_a_destination_whose_calls_all_hang(
    relay_to: OpenRelay, elsewhere: ThreadPoolExecutor
) -> None:
    shop = HangingFor(1, 2)
    relay = relay_to(shop, concurrency=2)
    recorded_for(relay.db, an_aggregate(), an_aggregate())

    run = outlasting(relay, elsewhere, calls=2)
    recorded_for(relay.db, an_aggregate())
    assert relay.claim(relay.destinations) is None
    shop.may_answer.set()

    assert run.result().processed == 3


def test_a_process_that_ends_has_the_events_of_its_hanging_calls_sent_again(
    relay_to: OpenRelay, elsewhere: ThreadPoolExecutor
) -> None:
    shop = HangingFor(1)
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate(), an_aggregate())
    run = outlasting(relay, elsewhere)

    relay.stopping.set()
    run.result()
    relay.late_answers.close(0)

    claimed = relay_to(FakeDestination()).claim(["shop"])
    assert claimed and [one.id for one in claimed.batch.rows] == [1]
    shop.may_answer.set()


class LateStep(Step):
    """A step that answers its first event late, and whose effect of that breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Event()
        self.answer = self._wait

    def _wait(self, row: Row) -> Outcome:
        if row.id == 1:
            assert self.may_answer.wait(60)
        return Delivered()


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.ordering.batch_of_calls.FIRST_ANSWER_SECONDS", 0.01)


@pytest.mark.usefixtures("quickly")
def test_an_effect_of_a_late_answer_that_breaks_fails_its_event(
    relay_to: OpenRelay, elsewhere: ThreadPoolExecutor
) -> None:
    shop = LateStep()
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate())
    shop.poisonous = {1}

    run = outlasting(relay, elsewhere)
    shop.may_answer.set()
    run.result()

    assert (row(relay.db, 1).attempts, row(relay.db, 1).last_error) == (1, "ValueError: poison")
    assert shop.applied == []


@pytest.mark.usefixtures("quickly")
def test_an_answer_that_postgresql_did_not_write_is_written_later(
    relay_to: OpenRelay, elsewhere: ThreadPoolExecutor
) -> None:
    shop = HangingFor(1)
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate())

    run = outlasting(relay, elsewhere)
    with relay.db.begin() as session:
        session.execute(select(outbox).with_for_update())
        shop.may_answer.set()
        wait_until_blocked(relay.db)
        session.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

    assert run.result().processed == 1


@pytest.mark.usefixtures("quickly")
def test_late_answers_are_settled_on_when_nothing_could_be_claimed_after_one_of_them(
    relay_to: OpenRelay, elsewhere: ThreadPoolExecutor
) -> None:
    shop = HangingFor(1, 2)
    relay = relay_to(shop, concurrency=2)
    recorded_for(relay.db, an_aggregate(), an_aggregate())
    failures: list[int] = []

    def fail() -> None:
        failures.append(1)
        raise OperationalError("", {}, Exception("the connection is lost"))

    relay.late_answers.settled = fail
    run = outlasting(relay, elsewhere, calls=2)
    shop.may_answer.set()

    assert run.result().processed == len(failures) == 2


def test_a_probe_that_hangs_shuts_the_destination_for_no_longer_than_one_that_fails(
    relay_to: OpenRelay, elsewhere: ThreadPoolExecutor
) -> None:
    shop = HangingFor(1)
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate(), an_aggregate())
    set_shop(relay.db, failures=1, open_until=clock(relay.db), opened_at=clock(relay.db))

    run = elsewhere.submit(relay.run)
    wait_until("its neighbour is delivered", lambda: drained(relay) and states(relay.db, 2) == ["processed"])

    assert destination(relay.db).failures == 0
    shop.may_answer.set()
    run.result()


def test_a_probe_first_tries_a_row_that_was_never_refused(relay_to: OpenRelay) -> None:
    shop = FakeDestination(lambda _: Delivered())
    relay = relay_to(shop)
    aggregate = an_aggregate()
    refused, behind, never_refused = recorded_for(relay.db, aggregate, aggregate, an_aggregate())
    with relay.db.begin() as session:
        session.execute(update(outbox).where(outbox.c.id == refused).values(unreachable_at=func.now()))
    set_shop(relay.db, failures=1, open_until=clock(relay.db), opened_at=clock(relay.db))

    relay.run()

    assert shop.called == [never_refused, refused, behind]
