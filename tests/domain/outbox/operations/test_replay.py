"""Replaying: the same events are sent again, in their order, while workers deliver and other operators replay."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Thread

import pytest
from sqlalchemy import text, update

from domain import invariants
from domain.fulfilment import STEP_TYPES
from domain.outbox import Delivered, Outcome, Rejected, Row
from domain.outbox.operations import replay
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.replay import ReplayCount
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.table import outbox
from domain.runtime.errors import Invalid
from tests.conftest import OpenRelay
from tests.support.builders import Db, a_hold, an_event, an_item, recorded
from tests.support.operations import ENTRY, mark_delivered
from tests.support.outbox import NOT_NOW, FakeDestination, an_aggregate, recorded_for, row, rows, states, time_passes
from tests.support.waiting import wait_until, wait_until_blocked
from worker.formats.envelope import trace

DEAD = Selection(among=Among.DEAD, everything=True)
DELIVERED = Selection(among=Among.DELIVERED, everything=True)


def replayed(
    db: Db,
    selection: Selection,
    *,
    limit: int = 500,
    step_types: frozenset[str] = STEP_TYPES,
    then: Callable[[], object] = lambda: None,
) -> int:
    """Replay a selection to its end, batch by batch, and call `then` after each. Return how many rows."""
    done = 0
    with db.begin() as session:
        batch = Batch(selection=selection.as_of_now(session), entry=ENTRY, limit=limit)
    while True:
        with db.begin() as session:
            changed = replay.replay(session, batch, step_types)
        done += changed.rows
        then()
        if changed.following is None:
            return done
        batch = changed.following


def counted(db: Db, selection: Selection, *, step_types: frozenset[str] = STEP_TYPES) -> ReplayCount:
    with db.begin() as session:
        return replay.count(session, selection, step_types)


def violated(db: Db) -> list[str]:
    """Return the invariants that are violated."""
    with db.begin() as session:
        return [finding.title for finding in invariants.examine(session) if finding.violations]


def test_when_there_is_nothing_to_replay_nothing_is_replayed(db: Db) -> None:
    assert counted(db, DEAD) == ReplayCount(rows=0)
    assert replayed(db, DEAD) == 0


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_no_new_event_passes_between_the_replayed_ones_of_its_reservation(relay_to: OpenRelay, limit: int) -> None:
    """The reservation has more rows than a batch, and a worker delivers while the batches are being replayed."""
    server = FakeDestination()
    relay = relay_to(server)
    one, other = an_aggregate(1), an_aggregate(2)
    ids = recorded_for(relay.db, one, other, one, one, other, one)
    of_one = [ids[place] for place in (0, 2, 3, 5)]
    relay.run()
    server.called.clear()
    new: list[int] = []

    def work() -> None:
        new.extend(recorded_for(relay.db, one))
        relay.run()

    assert replayed(relay.db, DELIVERED, limit=limit, then=work) == len(ids)

    sent = [row_id for row_id in server.called if row_id in (*of_one, *new)]
    assert sent == [*of_one, *new]
    assert violated(relay.db) == []


def test_a_batch_has_whole_reservations_and_no_more_rows_than_its_limit(shop: Db) -> None:
    one, other, third = (an_aggregate() for _ in range(3))
    ids = recorded_for(shop, one, other, one, third, other, third)
    mark_delivered(shop, *ids)
    batches: list[list[int]] = []

    replayed(shop, DELIVERED, limit=5, then=lambda: batches.append([one.id for one in rows(shop) if one.replayed_at]))

    assert batches == [[1, 2, 3, 5], ids]


def test_dead_letters_are_sent_again_in_order_as_the_same_events_and_marked(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    aggregate = an_aggregate()
    ids = recorded_for(relay.db, aggregate, aggregate, aggregate)
    server.failures = {ids[0]: Rejected("no"), ids[1]: Rejected("no")}
    relay.run()
    before = rows(relay.db)
    server.failures.clear()
    server.called.clear()

    assert replayed(relay.db, DEAD) == 2
    assert violated(relay.db) == []
    relay.run()

    assert server.called == ids[:2]
    assert [one.event_id for one in rows(relay.db)] == [one.event_id for one in before]
    assert states(relay.db) == ["processed"] * 3
    first, second, third = (one.headers.get("replayed") for one in rows(relay.db))
    assert (first, third) == (second, None)
    assert datetime.fromisoformat(first) == rows(relay.db)[0].replayed_at
    assert violated(relay.db) == []


def test_a_replayed_event_is_sent_with_a_mark_and_with_the_id_of_its_request(relay_to: OpenRelay) -> None:
    sent: list[dict[str, str]] = []

    def answer(row: Row) -> Outcome:
        sent.append(trace(row))
        return Delivered()

    relay = relay_to(FakeDestination(answer))
    recorded(relay.db, an_event())
    with relay.db.begin() as session:
        session.execute(update(outbox).values(headers={"correlation_id": "r-1"}))
    relay.run()
    replayed(relay.db, DELIVERED)
    relay.run()

    first, second = sent
    assert first == {"X-Request-Id": "r-1"}
    assert datetime.fromisoformat(second.pop("replayed")) == rows(relay.db)[0].replayed_at
    assert second == first


def test_a_replayed_row_begins_anew_and_keeps_its_last_error(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    (row_id,) = recorded_for(relay.db, an_aggregate())
    server.failures[row_id] = Rejected("too large")
    relay.run()

    replayed(relay.db, DEAD)

    again = row(relay.db, row_id)
    assert (again.attempts, again.dead_at, again.unreachable_at, again.last_error) == (0, None, None, "too large")
    assert again.replayed_at is not None


def test_a_replayed_row_that_fails_makes_the_later_ones_wait(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    aggregate = an_aggregate()
    first, second = recorded_for(relay.db, aggregate, aggregate)
    relay.run()
    server.called.clear()
    server.failures[first] = NOT_NOW

    replayed(relay.db, DELIVERED)
    (third,) = recorded_for(relay.db, aggregate)
    relay.run()

    assert (server.called, states(relay.db)) == ([first], ["waiting"] * 3)
    server.failures.clear()
    time_passes(relay.db)
    relay.run()
    assert server.called == [first, first, second, third]


def test_rows_that_are_replayed_during_a_run_over_their_lane_keep_their_order(relay_to: OpenRelay) -> None:
    """The run has read past the first of the two replayed rows, and not past the second."""
    server = FakeDestination()
    relay = relay_to(server, batch_size=1)
    aggregate, other = an_aggregate(), an_aggregate()
    first, between, second = recorded_for(relay.db, aggregate, other, aggregate)
    with relay.db.begin() as session:
        session.execute(update(outbox).where(outbox.c.id != between).values(dead_at=text("now()")))

    def meanwhile(_: Row) -> Outcome:
        if len(server.called) == 1:
            assert replayed(relay.db, DEAD) == 2
        return Delivered()

    server.answer = meanwhile
    relay.run()

    assert server.called == [between, first, second]


def test_a_row_behind_one_that_is_replayed_during_a_run_over_their_lane_waits_for_it(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server, batch_size=1)
    aggregate, other = an_aggregate(), an_aggregate()
    first, between, second = recorded_for(relay.db, aggregate, other, aggregate)
    with relay.db.begin() as session:
        session.execute(update(outbox).where(outbox.c.id == first).values(dead_at=text("now()")))

    def meanwhile(_: Row) -> Outcome:
        if len(server.called) == 1:
            replayed(relay.db, DEAD)
        return Delivered()

    server.answer = meanwhile
    relay.run()
    relay.run()

    assert server.called == [between, first, second]


def test_a_replay_beside_workers_loses_no_row_and_repeats_each_row_once(relay_to: OpenRelay) -> None:
    server = FakeDestination(concurrency=4)
    relay = relay_to(server, batch_size=20)
    aggregates = [an_aggregate(number % 32) for number in range(64)]
    ids = recorded_for(relay.db, *(aggregates * 10))
    relay.run()
    server.called.clear()
    stopped = False

    def keep_draining() -> None:
        while not stopped:
            relay.run()

    workers = [Thread(target=keep_draining) for _ in range(3)]
    for worker in workers:
        worker.start()
    done = replayed(relay.db, DELIVERED, limit=30)
    try:
        wait_until("every row is delivered", lambda: set(states(relay.db)) == {"processed"})
    finally:
        stopped = True
        for worker in workers:
            worker.join()

    assert done == len(ids)
    assert sorted(server.called) == ids
    by_id = {one.id: one.aggregate_id for one in rows(relay.db)}
    for aggregate in aggregates:
        sent = [row_id for row_id in server.called if by_id[row_id] == aggregate]
        assert sent == sorted(sent)
    assert violated(relay.db) == []


def test_each_batch_begins_where_the_last_one_ended_and_selects_no_row_that_was_replayed(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination())
    ids = recorded_for(relay.db, *(an_aggregate() for _ in range(5)))
    for row_id in reversed(ids):
        mark_delivered(relay.db, row_id)  # in the opposite order, so that the rows are not in order of id on the disk
    with relay.db.begin() as session:
        first = Batch(selection=DELIVERED.as_of_now(session), entry=ENTRY, limit=2)
    batch: Batch | None = first
    done = []
    while batch:
        with relay.db.begin() as session:
            changed = replay.replay(session, batch, STEP_TYPES)
        batch = changed.following
        done.append((changed.rows, batch and batch.after))
        relay.run()

    assert done == [(2, ids[1]), (2, ids[3]), (1, None)]
    with relay.db.begin() as session:
        assert replay.replay(session, first, STEP_TYPES).rows == 0


def test_pending_rows_are_never_replayed(relay_to: OpenRelay) -> None:
    server = FakeDestination()
    relay = relay_to(server)
    waiting, _ = recorded_for(relay.db, an_aggregate(), an_aggregate())
    server.failures[waiting] = NOT_NOW
    relay.run(limit=1)
    before = rows(relay.db)

    assert [replayed(relay.db, one) for one in (DEAD, DELIVERED)] == [0, 0]

    assert rows(relay.db) == before


def test_a_replay_does_not_wait_for_a_row_that_is_being_pruned(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination())
    first, second = recorded_for(relay.db, an_aggregate(), an_aggregate())
    relay.run()
    with relay.db() as pruning:
        pruning.execute(text("DELETE FROM outbox WHERE id = :id"), {"id": first})

        assert replayed(relay.db, DELIVERED) == 1
        pruning.commit()

    assert [one.id for one in rows(relay.db)] == [second]


def test_replays_of_the_same_rows_at_the_same_time_replay_each_row_once(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination())
    recorded_for(relay.db, *(an_aggregate(number % 32) for number in range(300)))
    relay.run()
    done: list[int] = []

    others = [Thread(target=lambda: done.append(replayed(relay.db, DELIVERED, limit=7))) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()

    assert sum(done) == 300


def test_a_replay_waits_for_another_one_so_that_neither_overtakes_within_a_reservation(db: Db) -> None:
    one, other = an_aggregate(), an_aggregate()
    ids = recorded_for(db, one, one, other, other)
    mark_delivered(db, *ids)
    with ThreadPoolExecutor(1) as elsewhere, db() as first:
        replay.replay(first, Batch(selection=DELIVERED, entry=ENTRY, limit=2), STEP_TYPES)
        second = elsewhere.submit(replayed, db, DELIVERED)
        wait_until_blocked(db)
        assert states(db) == ["processed"] * 4
        first.commit()

        assert second.result() == 2


def test_a_step_that_was_answered_is_skipped_and_counted(db: Db) -> None:
    a_hold(db, an_item(db))
    with db.begin() as session:
        session.execute(update(outbox).values(processed_at=text("now()")))

    assert counted(db, DELIVERED) == ReplayCount(rows=1, skipped_steps=1)
    assert replayed(db, DELIVERED) == 1
    assert {one.type for one in rows(db) if one.processed_at} == {"reservation_confirm"}


def test_which_events_are_steps_is_given_by_the_caller(db: Db) -> None:
    a_hold(db, an_item(db))
    with db.begin() as session:
        session.execute(update(outbox).values(processed_at=text("now()")))

    bookings = frozenset({"booking.created"})
    assert counted(db, DELIVERED, step_types=bookings) == ReplayCount(rows=1, skipped_steps=1)
    assert replayed(db, DELIVERED, step_types=bookings) == 1
    assert {one.type for one in rows(db) if one.processed_at} == {"booking.created"}


def test_a_selection_of_steps_that_were_answered_is_refused(db: Db) -> None:
    answered = Selection(among=Among.DELIVERED, type="reservation_confirm")

    with pytest.raises(Invalid, match="is a step"):
        counted(db, answered)
    with pytest.raises(Invalid, match="is a step"):
        replayed(db, answered)
