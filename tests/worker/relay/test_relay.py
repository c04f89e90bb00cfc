"""The relay: rows are delivered once, in order within each aggregate, and the failure of one stops no other."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from threading import Event, Thread

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from domain import outbox
from domain.outbox import LEASE, Declined, Delivered, Failed, Outcome, Rejected, Row, Settlement
from domain.outbox.table import destinations, lanes
from domain.outbox.table import outbox as table
from tests.conftest import OpenRelay
from tests.support.builders import Db, an_event, recorded, routes_of
from tests.support.outbox import (
    NOT_NOW,
    SHOP,
    FakeDestination,
    an_aggregate,
    claimed,
    recorded_for,
    row,
    rows,
    states,
    time_passes,
)
from tests.support.waiting import wait_until, wait_until_blocked
from tests.worker.test_isolate import Step
from worker.relay.lane_run import SLICE_SECONDS
from worker.relay.tally import Tally


def test_an_empty_outbox_is_drained_at_once(relay_to: OpenRelay) -> None:
    assert relay_to(FakeDestination()).run() == Tally()


def test_everything_due_is_delivered_once_and_marked(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    ids = recorded_for(relay.db, *(an_aggregate(number % 32) for number in range(100)))

    tally = relay.run()

    assert sorted(shop.called) == ids
    assert tally == Tally(tried=100, processed=100)
    assert set(states(relay.db)) == {"processed"}
    assert relay.run() == Tally()


def test_the_events_of_one_aggregate_are_delivered_in_order_whatever_the_size_of_a_batch(relay_to: OpenRelay) -> None:
    shop = FakeDestination(concurrency=4)
    relay = relay_to(shop, batch_size=3)
    aggregates = [an_aggregate(lane) for lane in (0, 0, 0, 1)]
    recorded_for(relay.db, *(aggregates * 5))

    relay.run()

    by_id = {one.id: one.aggregate_id for one in rows(relay.db)}
    for aggregate in aggregates:
        sent = [row_id for row_id in shop.called if by_id[row_id] == aggregate]
        assert sent == sorted(sent) and len(sent) == 5


def test_a_failed_event_is_tried_again_later_and_before_the_next_one_of_its_aggregate(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    one, other = an_aggregate(), an_aggregate()
    first, second, free = recorded_for(relay.db, one, one, other)
    shop.failures[first] = NOT_NOW

    assert relay.run() == Tally(tried=3, processed=1, waiting=2)
    assert (shop.called, states(relay.db)) == ([first, free], ["waiting", "waiting", "processed"])
    third, *_ = recorded_for(relay.db, one)
    assert relay.run() == Tally(tried=1, waiting=1)
    shop.failures.clear()
    time_passes(relay.db)

    assert relay.run() == Tally(tried=3, processed=3)
    assert shop.called == [first, free, first, second, third]
    assert row(relay.db, first).attempts == 1


def test_after_a_dead_letter_its_aggregate_continues(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    aggregate = an_aggregate()
    first, second = recorded_for(relay.db, aggregate, aggregate)
    shop.failures[first] = Rejected("too large")

    tally = relay.run()

    assert (tally.processed, tally.dead) == (1, 1)

    assert shop.called == [first, second]
    assert states(relay.db) == ["dead", "processed"]
    assert row(relay.db, first).last_error == "too large"


def test_after_the_last_attempt_a_row_is_dead_and_its_aggregate_continues_in_order(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop, max_attempts=1, batch_size=2)
    aggregate = an_aggregate()
    ids = recorded_for(relay.db, *[aggregate] * 5)
    shop.failures[ids[0]] = Failed("oops")

    relay.run()

    assert shop.called == ids
    assert states(relay.db) == ["dead"] + ["processed"] * 4


def test_a_server_that_breaks_the_call_fails_only_that_row(relay_to: OpenRelay) -> None:
    def answer(row: Row) -> Outcome:
        if row.id == 1:
            raise RuntimeError("unforeseen")
        return Delivered()

    relay = relay_to(FakeDestination(answer))
    recorded_for(relay.db, an_aggregate(), an_aggregate())

    assert relay.run(limit=2) == Tally(tried=2, processed=1, waiting=1)
    assert row(relay.db, 1).last_error == "RuntimeError: unforeseen"


def test_a_refusal_by_a_step_settles_its_row(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination(lambda _: Declined("no")))
    recorded_for(relay.db, an_aggregate())

    assert relay.run() == Tally(tried=1, processed=1)
    assert states(relay.db) == ["processed"]


def test_no_more_rows_are_tried_than_the_limit(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop, batch_size=3)
    recorded_for(relay.db, *(an_aggregate(number % 2) for number in range(20)))

    assert relay.run(limit=7) == Tally(tried=7, processed=7)
    assert len(shop.called) == 7
    assert relay.run(limit=7) == Tally(tried=7, processed=7)
    assert claimed(relay.db) is not None, "the lanes were released"


def test_a_relay_that_is_stopped_finishes_its_batch_and_releases_its_lane(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop, batch_size=2)
    recorded_for(relay.db, *(an_aggregate() for _ in range(6)))

    def stop(_: Row) -> Outcome:
        relay.stopping.set()
        return Delivered()

    shop.answer = stop

    assert relay.run() == Tally(tried=2, processed=2)
    assert claimed(relay.db) is not None


def test_a_relay_that_was_stopped_claims_nothing(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination())
    recorded_for(relay.db, an_aggregate())
    relay.stopping.set()

    assert relay.run() == Tally()


def test_a_lane_is_released_after_its_slice_of_time(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop, batch_size=1)
    ids = recorded_for(relay.db, *(an_aggregate(lane) for lane in (0, 1, 0, 1)))
    lanes_of = {one.id: one.lane for one in rows(relay.db)}

    def slow_at_first(_: Row) -> Outcome:
        time.sleep(SLICE_SECONDS if len(shop.called) == 1 else 0)
        return Delivered()

    shop.answer = slow_at_first

    relay.run()

    assert sorted(shop.called) == ids
    first, second, *_ = [lanes_of[row_id] for row_id in shop.called]
    assert first != second, "the other lane had its turn in between"


def test_progress_is_reported_after_each_lane(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination(), batch_size=1)
    recorded_for(relay.db, an_aggregate(1), an_aggregate(2))
    reported: list[int] = []

    relay.run(progress=lambda tally: reported.append(tally.processed))

    assert reported == [1, 1]


def test_rows_of_a_destination_that_is_not_in_the_routes_stay_pending(relay_to: OpenRelay, db: Db) -> None:
    """During a rolling deployment an old worker meets rows of a new destination."""
    recorded(db, an_event(an_aggregate()))
    relay = relay_to(FakeDestination())

    assert relay.run() == Tally()
    assert states(db) == ["ready"]


def test_a_paused_destination_keeps_its_rows(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate())
    with relay.db.begin() as session:
        session.execute(update(destinations).values(paused=True))

    assert relay.run() == Tally()
    assert (shop.called, states(relay.db)) == ([], ["ready"])


def test_a_run_that_lost_its_lease_writes_nothing_and_counts_its_rows_as_fenced(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate(), an_aggregate())

    def freeze(_: Row) -> Outcome:
        if len(shop.called) == 1:
            time_passes(relay.db)
            assert claimed(relay.db) is not None
        return Delivered()

    shop.answer = freeze

    tally = relay.run()

    assert tally == Tally(tried=2, fenced=2)
    assert states(relay.db) == ["ready", "ready"]


def test_a_row_that_commits_late_is_not_overtaken_by_the_next_one_of_its_aggregate(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop, batch_size=1)
    slow, quick = an_aggregate(), an_aggregate()
    with relay.db() as late:
        outbox.record(late, [an_event(slow)], routes_of(relay.db))
        recorded_for(relay.db, quick)

        def meanwhile(_: Row) -> Outcome:
            if len(shop.called) == 1:
                late.commit()
                recorded_for(relay.db, slow)
            return Delivered()

        shop.answer = meanwhile
        relay.run()

    assert shop.called == [2, 1, 3]


def test_several_threads_deliver_each_row_once(relay_to: OpenRelay) -> None:
    shop = FakeDestination(concurrency=4)
    relay = relay_to(shop, batch_size=5)
    ids = recorded_for(relay.db, *(an_aggregate(number % 32) for number in range(400)))

    others = [Thread(target=relay.run) for _ in range(4)]
    for other in others:
        other.start()
    for other in others:
        other.join()

    assert sorted(shop.called) == ids
    assert set(states(relay.db)) == {"processed"}


def test_a_lease_is_renewed_while_a_call_takes_its_time(relay_to: OpenRelay) -> None:
    shop, called, done = FakeDestination(), Event(), Event()
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate())

    def slow(_: Row) -> Outcome:
        called.set()
        done.wait()
        return Delivered()

    shop.answer = slow
    working = Thread(target=relay.run)
    working.start()
    called.wait()

    first = leased_until(relay.db)
    wait_until("the lease is renewed", lambda: leased_until(relay.db) > first)
    done.set()
    working.join()

    assert states(relay.db) == ["processed"]


def leased_until(db: Db) -> datetime:
    """Return the time at which the lease of the one leased lane ends."""
    with db.begin() as session:
        moment: datetime = session.execute(select(lanes.c.leased_until).where(lanes.c.holder.is_not(None))).scalar_one()
    return moment


def test_a_worker_that_was_frozen_since_its_claim_begins_no_call(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate())
    claimed = relay.claim([SHOP])
    assert claimed

    relay.drain(replace(claimed, at=claimed.at - LEASE.total_seconds()))
    assert shop.called == []

    relay.run()
    assert states(relay.db) == ["processed"]


def test_a_batch_that_postgresql_did_not_settle_is_settled_once_more_and_not_sent_again(
    relay_to: OpenRelay,
) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate(), an_aggregate())

    with ThreadPoolExecutor(1) as elsewhere, relay.db.begin() as session:
        session.execute(select(table).with_for_update())
        run = elsewhere.submit(relay.run)
        wait_until_blocked(relay.db)
        session.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        session.commit()

        assert run.result() == Tally(tried=2, processed=2)
    assert len(shop.called) == 2


class Lossy(Step):
    """A step whose first commit is done, and not answered."""

    def apply(self, session: Session, settlement: Settlement) -> None:
        if not self.applied:
            event.listen(session, "after_commit", self._lose, once=True)
        super().apply(session, settlement)

    def _lose(self, _: Session) -> None:
        raise OperationalError("", {}, Exception("the connection is lost"))


@pytest.mark.parametrize("batch_size", [1, 1_000])
def test_effects_are_not_applied_again_when_the_commit_was_done_and_not_answered(
    relay_to: OpenRelay, batch_size: int
) -> None:
    shop = Lossy()
    relay = relay_to(shop, batch_size=batch_size)
    ids = recorded_for(relay.db, an_aggregate(), an_aggregate())

    relay.run()

    assert shop.applied == shop.called == ids
    assert states(relay.db) == ["processed"] * 2
    assert relay.claim(relay.destinations) is None
