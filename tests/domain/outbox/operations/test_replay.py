"""Replaying: the same events again, in their order, whatever else is going on."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import text, update

from domain import invariants
from domain.outbox import Delivered, Outcome, Rejected, Row
from domain.outbox.operations import replay
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.replay import Count
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.table import outbox
from domain.runtime.errors import Invalid
from tests.conftest import OpenRelay
from tests.support.builders import Db, a_hold, an_event, an_item, recorded
from tests.support.operations import ENTRY, left
from tests.support.outbox import NOT_NOW, Outside, Troubled, an_aggregate, recorded_for, row, rows, states, time_passes
from tests.support.serving import wait_until, wait_until_blocked
from worker.formats.envelope import trace

DEAD = Selection(among=Among.DEAD, everything=True)
DELIVERED = Selection(among=Among.DELIVERED, everything=True)


def replayed(db: Db, selection: Selection, *, limit: int = 500) -> int:
    """Replay a selection to its end, batch by batch. Return how many rows."""
    done = 0
    with db.begin() as session:
        batch = Batch(selection=selection.as_of_now(session), entry=ENTRY, limit=limit)
    while True:
        with db.begin() as session:
            changed = replay.send_again(session, batch)
        done += changed.rows
        if changed.following is None:
            return done
        batch = changed.following


def counted(db: Db, selection: Selection) -> Count:
    with db.begin() as session:
        return replay.count(session, selection)


def laws_broken(db: Db) -> list[str]:
    with db.begin() as session:
        return [finding.says for finding in invariants.examine(session) if finding.broken]


def test_nothing_to_replay_is_replayed_at_once(db: Db) -> None:
    assert counted(db, DEAD) == Count(rows=0)
    assert replayed(db, DEAD) == 0


def test_dead_letters_go_out_again_in_order_as_the_same_events_and_marked(relay_to: OpenRelay) -> None:
    shop = Troubled()
    relay = relay_to(shop)
    aggregate = an_aggregate()
    ids = recorded_for(relay.db, aggregate, aggregate, aggregate)
    shop.trouble = {ids[0]: Rejected("no"), ids[1]: Rejected("no")}
    relay.run()
    before = rows(relay.db)
    shop.trouble.clear()
    shop.called.clear()

    assert replayed(relay.db, DEAD) == 2
    assert laws_broken(relay.db) == []
    relay.run()

    assert shop.called == ids[:2]
    assert [one.event_id for one in rows(relay.db)] == [one.event_id for one in before]
    assert states(relay.db) == ["processed"] * 3
    first, second, third = (one.headers.get("replayed") for one in rows(relay.db))
    assert (first, third) == (second, None)
    assert datetime.fromisoformat(first) == rows(relay.db)[0].replayed_at
    assert laws_broken(relay.db) == []


def test_who_gets_a_replayed_event_is_told_so_and_by_which_request_it_was(relay_to: OpenRelay) -> None:
    sent: list[dict[str, str]] = []

    def answer(row: Row) -> Outcome:
        sent.append(trace(row))
        return Delivered()

    relay = relay_to(Outside(answer))
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


def test_a_replayed_row_begins_anew_and_remembers_what_ailed_it(relay_to: OpenRelay) -> None:
    shop = Troubled()
    relay = relay_to(shop)
    (row_id,) = recorded_for(relay.db, an_aggregate())
    shop.trouble[row_id] = Rejected("too large")
    relay.run()

    replayed(relay.db, DEAD)

    again = row(relay.db, row_id)
    assert (again.attempts, again.dead_at, again.unreachable_at, again.last_error) == (0, None, None, "too large")
    assert again.replayed_at is not None


def test_a_replayed_row_that_fails_makes_the_later_ones_wait(relay_to: OpenRelay) -> None:
    shop = Troubled()
    relay = relay_to(shop)
    aggregate = an_aggregate()
    first, second = recorded_for(relay.db, aggregate, aggregate)
    relay.run()
    shop.called.clear()
    shop.trouble[first] = NOT_NOW

    replayed(relay.db, DELIVERED)
    (third,) = recorded_for(relay.db, aggregate)
    relay.run()

    assert (shop.called, states(relay.db)) == ([first], ["waiting"] * 3)
    shop.trouble.clear()
    time_passes(relay.db)
    relay.run()
    assert shop.called == [first, first, second, third]


def test_what_is_replayed_under_a_worker_keeps_its_order(relay_to: OpenRelay) -> None:
    """The hold has read past the first of the two replayed rows, and not past the second."""
    shop = Outside()
    relay = relay_to(shop, batch_size=1)
    aggregate, other = an_aggregate(), an_aggregate()
    first, between, second = recorded_for(relay.db, aggregate, other, aggregate)
    with relay.db.begin() as session:
        session.execute(update(outbox).where(outbox.c.id != between).values(dead_at=text("now()")))

    def meanwhile(_: Row) -> Outcome:
        if len(shop.called) == 1:
            assert replayed(relay.db, DEAD) == 2
        return Delivered()

    shop.answer = meanwhile
    relay.run()

    assert shop.called == [between, first, second]


def test_what_follows_a_row_that_is_replayed_under_a_worker_waits_for_it(relay_to: OpenRelay) -> None:
    shop = Outside()
    relay = relay_to(shop, batch_size=1)
    aggregate, other = an_aggregate(), an_aggregate()
    first, between, second = recorded_for(relay.db, aggregate, other, aggregate)
    with relay.db.begin() as session:
        session.execute(update(outbox).where(outbox.c.id == first).values(dead_at=text("now()")))

    def meanwhile(_: Row) -> Outcome:
        if len(shop.called) == 1:
            replayed(relay.db, DEAD)
        return Delivered()

    shop.answer = meanwhile
    relay.run()
    relay.run()

    assert shop.called == [between, first, second]


def test_a_replay_beside_workers_loses_nothing_and_repeats_each_row_once(relay_to: OpenRelay) -> None:
    shop = Outside(concurrency=4)
    relay = relay_to(shop, batch_size=20)
    aggregates = [an_aggregate(number % 32) for number in range(64)]
    ids = recorded_for(relay.db, *(aggregates * 10))
    relay.run()
    shop.called.clear()
    stopped = False

    def keep_draining() -> None:
        while not stopped:
            relay.run()

    workers = [Thread(target=keep_draining) for _ in range(3)]
    for worker in workers:
        worker.start()
    done = replayed(relay.db, DELIVERED, limit=30)
    try:
        wait_until("everything has left", lambda: set(states(relay.db)) == {"processed"})
    finally:
        stopped = True
        for worker in workers:
            worker.join()

    assert done == len(ids)
    assert sorted(shop.called) == ids
    by_id = {one.id: one.aggregate_id for one in rows(relay.db)}
    for aggregate in aggregates:
        sent = [row_id for row_id in shop.called if by_id[row_id] == aggregate]
        assert sent == sorted(sent)
    assert laws_broken(relay.db) == []


def test_a_replay_goes_on_from_where_it_stopped_and_never_meets_its_own_rows(relay_to: OpenRelay) -> None:
    relay = relay_to(Outside())
    ids = recorded_for(relay.db, *(an_aggregate() for _ in range(5)))
    for row_id in reversed(ids):
        left(relay.db, row_id)  # as the last one left last, they are not in order on the disk
    with relay.db.begin() as session:
        first = Batch(selection=DELIVERED.as_of_now(session), entry=ENTRY, limit=2)
    batch: Batch | None = first
    done = []
    while batch:
        with relay.db.begin() as session:
            changed = replay.send_again(session, batch)
        batch = changed.following
        done.append((changed.rows, batch and batch.after))
        relay.run()

    assert done == [(2, ids[1]), (2, ids[3]), (1, None)]
    with relay.db.begin() as session:
        assert replay.send_again(session, first).rows == 0


def test_pending_rows_are_never_replayed(relay_to: OpenRelay) -> None:
    shop = Troubled()
    relay = relay_to(shop)
    waiting, _ = recorded_for(relay.db, an_aggregate(), an_aggregate())
    shop.trouble[waiting] = NOT_NOW
    relay.run(limit=1)
    before = rows(relay.db)

    assert [replayed(relay.db, one) for one in (DEAD, DELIVERED)] == [0, 0]

    assert rows(relay.db) == before


def test_what_is_being_pruned_is_not_waited_for(relay_to: OpenRelay) -> None:
    relay = relay_to(Outside())
    first, second = recorded_for(relay.db, an_aggregate(), an_aggregate())
    relay.run()
    with relay.db() as pruning:
        pruning.execute(text("DELETE FROM outbox WHERE id = :id"), {"id": first})

        assert replayed(relay.db, DELIVERED) == 1
        pruning.commit()

    assert [one.id for one in rows(relay.db)] == [second]


def test_two_replays_of_the_same_rows_take_each_once(relay_to: OpenRelay) -> None:
    relay = relay_to(Outside())
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
    aggregate = an_aggregate()
    ids = recorded_for(db, *[aggregate] * 4)
    left(db, *ids)
    with ThreadPoolExecutor(1) as elsewhere, db() as first:
        replay.send_again(first, Batch(selection=DELIVERED, entry=ENTRY, limit=2))
        second = elsewhere.submit(replayed, db, DELIVERED)
        wait_until_blocked(db)
        assert states(db) == ["processed"] * 4
        first.commit()

        assert second.result() == 2


def test_an_answered_step_is_left_out_and_counted(db: Db) -> None:
    a_hold(db, an_item(db))
    with db.begin() as session:
        session.execute(update(outbox).values(processed_at=text("now()")))

    assert counted(db, DELIVERED) == Count(rows=1, skipped_steps=1)
    assert replayed(db, DELIVERED) == 1
    assert {one.type for one in rows(db) if one.processed_at} == {"reservation_confirm"}


def test_an_answered_step_that_is_named_is_refused() -> None:
    with pytest.raises(Invalid, match="is a step"):
        Selection(among=Among.DELIVERED, type="reservation_confirm")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "selection"),
        ({"group": "no"}, "group"),
    ],
)
def test_a_selection_that_can_not_be_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        Selection(among=Among.DEAD, **fields)

    assert refused.value.field == field


def test_in_a_time_that_has_not_come_nothing_has_happened(db: Db) -> None:
    with db.begin() as session:
        now = session.execute(text("SELECT now()")).scalar_one()
        future = Selection(among=Among.DEAD, since=now + timedelta(days=1))
        with pytest.raises(Invalid, match="future"):
            future.as_of_now(session)
