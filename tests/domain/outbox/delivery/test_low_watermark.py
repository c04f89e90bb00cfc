"""The floor of a lane: what lies below it is never looked for, and never has to be."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, text, update

from domain import outbox
from domain.outbox import Delivered, NotSent, Lane, Outcome, Row
from domain.outbox.delivery.outcomes import Retries
from domain.outbox.operations import replay
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.table import lanes
from domain.outbox.table import outbox as table
from tests.conftest import OpenRelay
from tests.domain.outbox.test_plans import DESCENT, carried_out, claim
from tests.support.builders import Db, an_event
from tests.support.operations import ENTRY
from tests.support.outbox import (
    DOWN,
    NOT_NOW,
    SHOP,
    Outside,
    Troubled,
    an_aggregate,
    fetched,
    recorded_for,
    released,
    states,
    time_passes,
)
from worker import maintenance
from worker.relay import relay as draining
from worker.relay.relay import Relay

WEEK = timedelta(days=7)


def floor(db: Db, lane: int = 0) -> int:
    with db.begin() as session:
        found = select(lanes.c.settled_to).where(lanes.c.destination == SHOP, lanes.c.lane == lane)
        return int(session.execute(found).scalar_one())


def risen(drain: Relay) -> int:
    """Record and drain until the floor of the first lane is above all that was there. Return where it is."""
    (newest,) = recorded_for(relay.db, an_aggregate())
    relay.run()
    for _ in range(3):
        recorded_for(relay.db, an_aggregate())
        relay.run()
    found = floor(relay.db)
    assert found >= newest
    return found


def swept(db: Db) -> None:
    maintenance.prune(db, threading.Event(), outbox_retention=WEEK)


def made_ready_by_hand(db: Db, row_id: int) -> None:
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == row_id).values(processed_at=None))


@pytest.fixture
def shop() -> Troubled:
    return Troubled()


@pytest.fixture
def drain(relay_to: OpenRelay, shop: Troubled) -> Relay:
    return relay_to(shop, batch_size=2)


@pytest.fixture
def old_snapshot(engine: Engine) -> Iterator[None]:
    """Somebody reads from a snapshot that is as old as the test."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text("SELECT FROM outbox"))
        yield
        connection.execute(text("SELECT FROM outbox"))


def test_the_floor_rises_to_what_was_settled_by_an_earlier_hold(drain: Relay) -> None:
    for _ in range(3):
        last, *_ = recorded_for(relay.db, an_aggregate())
        before = last - 1
        relay.run()

    assert floor(relay.db) == before
    assert floor(relay.db, 1) == 0


def test_it_rises_under_an_old_snapshot_and_then_a_claim_walks_over_nothing(
    relay_to: OpenRelay, old_snapshot: None
) -> None:
    relay = relay_to(Outside())
    recorded_for(relay.db, *(an_aggregate() for _ in range(6_000)))
    relay.run()
    risen(drain)
    recorded_for(relay.db, an_aggregate())

    assert carried_out(relay.db, claim).pages <= 2 * 32 * DESCENT


@pytest.mark.parametrize("rounds", [1, 5])
def test_a_row_that_commits_late_is_never_below_it(drain: Relay, shop: Troubled, rounds: int) -> None:
    aggregate = an_aggregate()
    risen(drain)

    with relay.db.begin() as recorder:
        recorder.execute(select(func.pg_current_xact_id()))  # as the lock on the aggregate gives it
        outbox.record(recorder, [an_event(aggregate)])
        for _ in range(rounds):
            last, _ = recorded_for(relay.db, an_aggregate(), an_aggregate())
            relay.run()
        late = recorder.execute(select(table.c.id).where(table.c.aggregate_id == aggregate)).scalar_one()
        assert floor(relay.db) < late < last
    (after,) = recorded_for(relay.db, aggregate)
    relay.run()

    assert [row_id for row_id in shop.called if row_id in (late, after)] == [late, after]
    assert set(states(relay.db)) == {"processed"}


def test_a_row_of_the_youngest_transaction_is_never_below_it(drain: Relay, shop: Troubled) -> None:
    """A snapshot knows nothing of a transaction that is younger than all that have ended."""
    aggregate = an_aggregate()
    risen(drain)
    recorded_for(relay.db, an_aggregate(1), an_aggregate())

    with relay.db.begin() as elder, relay.db.begin() as recorder:
        for session in (elder, recorder):
            session.execute(select(func.pg_current_xact_id()))
        outbox.record(recorder, [an_event(aggregate)])
        late = recorder.execute(select(table.c.id).where(table.c.aggregate_id == aggregate)).scalar_one()
        outbox.record(elder, [an_event(an_aggregate())])
        elder.commit()
        relay.run()
        assert floor(relay.db) < late
    (after,) = recorded_for(relay.db, aggregate)
    relay.run()

    assert [row_id for row_id in shop.called if row_id in (late, after)] == [late, after]


def test_who_recorded_late_and_gave_up_does_not_hold_it_back_for_ever(drain: Relay) -> None:
    with relay.db() as recorder:
        recorder.execute(select(func.pg_current_xact_id()))
        outbox.record(recorder, [an_event(an_aggregate())])
        recorded_for(relay.db, an_aggregate())
        relay.run()
        recorder.rollback()

    risen(drain)


def test_a_row_that_waited_is_delivered_from_below_it(drain: Relay, shop: Troubled) -> None:
    aggregate = an_aggregate()
    bad, behind = recorded_for(relay.db, aggregate, aggregate)
    shop.trouble[bad] = NOT_NOW
    relay.run()
    assert risen(drain) > behind

    del shop.trouble[bad]
    time_passes(relay.db)
    relay.run()

    assert [row_id for row_id in shop.called if row_id in (bad, behind)] == [bad, bad, behind]
    assert set(states(relay.db)) == {"processed"}


def test_what_is_replayed_is_delivered_from_below_it(drain: Relay, shop: Troubled) -> None:
    aggregate = an_aggregate()
    ids = recorded_for(relay.db, aggregate, aggregate)
    relay.run()
    risen(drain)

    with relay.db.begin() as session:
        selection = Selection(among=Among.DELIVERED, reservation_id=aggregate)
        replay.send_again(session, Batch(selection=selection, entry=ENTRY))
    relay.run()

    assert [row_id for row_id in shop.called if row_id in ids] == [*ids, *ids]


def test_a_hold_whose_time_is_over_leaves_the_rest_above_it(
    drain: Relay, shop: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    risen(drain)
    monkeypatch.setattr(draining, "SLICE_SECONDS", 0)
    ids = recorded_for(relay.db, *(an_aggregate() for _ in range(7)))
    floors = []

    def answer(_: Row) -> Outcome:
        floors.append(floor(relay.db))
        return Delivered()

    shop.answer = answer

    relay.run()

    assert shop.called[-7:] == ids
    assert set(states(relay.db)) == {"processed"}
    assert ids[0] <= floors[-1] < ids[-1], "it has risen from hold to hold"


def test_a_last_batch_that_leaves_a_row_ready_leaves_it_above_the_floor(drain: Relay) -> None:
    recorded_for(relay.db, an_aggregate())
    for _ in range(3):
        with relay.db.begin() as session:
            lane = outbox.claim(session, [SHOP], "me", relay.horizon)
        assert lane is not None
        rows = fetched(relay.db, lane, after=lane.settled_to)
        with relay.db.begin() as session:
            held = [(row, NotSent()) for row in rows]
            outbox.settle(session, lane, held, retries=Retries(max_attempts=1), is_last=True)

    assert lane and lane.complete_to == rows[-1].id, "it could have risen"
    assert floor(relay.db) == 0


def test_a_run_that_has_reached_its_limit_leaves_the_rest_above_it(drain: Relay, shop: Troubled) -> None:
    risen(drain)
    ids = recorded_for(relay.db, *(an_aggregate() for _ in range(5)))

    for _ in range(5):
        relay.run(limit=1)

    assert shop.called[-5:] == ids


def test_what_an_outage_has_left_ready_or_waiting_is_delivered_after_it(drain: Relay, shop: Troubled) -> None:
    risen(drain)
    one, other = an_aggregate(), an_aggregate()
    ids = recorded_for(relay.db, one, other, one, other, one)
    shop.trouble = dict.fromkeys(ids, DOWN)
    for _ in range(3):
        relay.run()
        time_passes(relay.db)
    assert {"ready", "waiting"} & set(states(relay.db, *ids))

    shop.trouble = {}
    relay.run()
    shop.called = list(dict.fromkeys(reversed(shop.called)))  # the last calls, the latest first

    assert [row_id for row_id in shop.called if row_id in ids[0::2]] == ids[0::2][::-1]
    assert [row_id for row_id in shop.called if row_id in ids[1::2]] == ids[1::2][::-1]
    assert set(states(relay.db)) == {"processed"}


def test_a_sweep_finds_what_was_made_ready_by_hand_below_it(drain: Relay, shop: Troubled) -> None:
    (row_id,) = recorded_for(relay.db, an_aggregate())
    relay.run()
    risen(drain)

    made_ready_by_hand(relay.db, row_id)
    swept(relay.db)
    relay.run()

    assert shop.called.count(row_id) == 2


def test_a_sweep_that_finds_nothing_wrong_leaves_it_where_it_is(drain: Relay) -> None:
    before = risen(drain)
    recorded_for(relay.db, an_aggregate())

    swept(relay.db)

    assert floor(relay.db) == before


def test_ids_that_begin_anew_are_not_stuck_after_a_sweep(drain: Relay, shop: Troubled) -> None:
    risen(drain)
    shop.called.clear()
    with relay.db.begin() as session:
        session.execute(text("TRUNCATE outbox RESTART IDENTITY"))
    ids = recorded_for(relay.db, an_aggregate())

    swept(relay.db)
    relay.run()

    assert shop.called == ids == [1]


def test_a_hold_that_is_under_way_does_not_undo_the_sweep(drain: Relay) -> None:
    (row_id,) = recorded_for(relay.db, an_aggregate())
    relay.run()
    risen(drain)
    lane, batch = _held(drain, an_aggregate())

    made_ready_by_hand(relay.db, row_id)
    swept(relay.db)
    with relay.db.begin() as session:
        deliveries = [(one, Delivered()) for one in batch]
        outbox.settle(session, lane, deliveries, retries=Retries(max_attempts=1), is_last=True)

    assert floor(relay.db) == 0


def test_a_lane_that_is_given_back_unread_keeps_its_floor(drain: Relay) -> None:
    before = risen(drain)
    lane, _ = _held(drain, an_aggregate())

    released(relay.db, lane)

    assert floor(relay.db) == before


def _held(drain: Relay, aggregate: UUID) -> tuple[Lane, list[Row]]:
    """A lane with one new row in it, claimed as a drain does it, and the row."""
    recorded_for(relay.db, aggregate)
    with relay.db.begin() as session:
        lane = outbox.claim(session, [SHOP], "me", relay.horizon)
    assert lane is not None
    return lane, list(fetched(relay.db, lane, after=lane.settled_to))
