"""The floor of a lane: what lies below it is never looked for, and never has to be."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, text, update

from domain import outbox
from domain.outbox import Delivered, Held, Lane, Outcome, Row
from domain.outbox.delivery.outcomes import Retries
from domain.outbox.operations import replay
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.table import lanes
from domain.outbox.table import outbox as table
from tests.conftest import OpenDrain
from tests.domain.outbox.test_plans import DESCENT, carried_out, claim
from tests.support.builders import Db, an_event
from tests.support.operations import DEED
from tests.support.outbox import (
    DOWN,
    NOT_NOW,
    SHOP,
    Outside,
    Troubled,
    an_aggregate,
    fetched,
    promised,
    released,
    standing,
    time_passes,
)
from worker import maintenance
from worker.relay import relay as draining
from worker.relay.relay import Drain

WEEK = timedelta(days=7)


def floor(db: Db, lane: int = 0) -> int:
    with db.begin() as session:
        found = select(lanes.c.settled_to).where(lanes.c.destination == SHOP, lanes.c.lane == lane)
        return int(session.execute(found).scalar_one())


def risen(drain: Drain) -> int:
    """Record and drain until the floor of the first lane is above all that was there. Return where it is."""
    (newest,) = promised(drain.db, an_aggregate())
    drain.run()
    for _ in range(3):
        promised(drain.db, an_aggregate())
        drain.run()
    found = floor(drain.db)
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
def drain(drain_of: OpenDrain, shop: Troubled) -> Drain:
    return drain_of(shop, batch_size=2)


@pytest.fixture
def old_snapshot(engine: Engine) -> Iterator[None]:
    """Somebody reads from a snapshot that is as old as the test."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text("SELECT FROM outbox"))
        yield
        connection.execute(text("SELECT FROM outbox"))


def test_the_floor_rises_to_what_was_settled_by_an_earlier_hold(drain: Drain) -> None:
    for _ in range(3):
        last, *_ = promised(drain.db, an_aggregate())
        before = last - 1
        drain.run()

    assert floor(drain.db) == before
    assert floor(drain.db, 1) == 0


def test_it_rises_under_an_old_snapshot_and_then_a_claim_walks_over_nothing(
    drain_of: OpenDrain, old_snapshot: None
) -> None:
    drain = drain_of(Outside())
    promised(drain.db, *(an_aggregate() for _ in range(6_000)))
    drain.run()
    risen(drain)
    promised(drain.db, an_aggregate())

    assert carried_out(drain.db, claim).pages <= 2 * 32 * DESCENT


@pytest.mark.parametrize("rounds", [1, 5])
def test_a_row_that_commits_late_is_never_below_it(drain: Drain, shop: Troubled, rounds: int) -> None:
    aggregate = an_aggregate()
    risen(drain)

    with drain.db.begin() as recorder:
        recorder.execute(select(func.pg_current_xact_id()))  # as the lock on the aggregate gives it
        outbox.record(recorder, [an_event(aggregate)])
        for _ in range(rounds):
            last, _ = promised(drain.db, an_aggregate(), an_aggregate())
            drain.run()
        late = recorder.execute(select(table.c.id).where(table.c.aggregate_id == aggregate)).scalar_one()
        assert floor(drain.db) < late < last
    (after,) = promised(drain.db, aggregate)
    drain.run()

    assert [row_id for row_id in shop.called if row_id in (late, after)] == [late, after]
    assert set(standing(drain.db)) == {"processed"}


def test_a_row_of_the_youngest_transaction_is_never_below_it(drain: Drain, shop: Troubled) -> None:
    """A snapshot knows nothing of a transaction that is younger than all that have ended."""
    aggregate = an_aggregate()
    risen(drain)
    promised(drain.db, an_aggregate(1), an_aggregate())

    with drain.db.begin() as elder, drain.db.begin() as recorder:
        for session in (elder, recorder):
            session.execute(select(func.pg_current_xact_id()))
        outbox.record(recorder, [an_event(aggregate)])
        late = recorder.execute(select(table.c.id).where(table.c.aggregate_id == aggregate)).scalar_one()
        outbox.record(elder, [an_event(an_aggregate())])
        elder.commit()
        drain.run()
        assert floor(drain.db) < late
    (after,) = promised(drain.db, aggregate)
    drain.run()

    assert [row_id for row_id in shop.called if row_id in (late, after)] == [late, after]


def test_who_recorded_late_and_gave_up_does_not_hold_it_back_for_ever(drain: Drain) -> None:
    with drain.db() as recorder:
        recorder.execute(select(func.pg_current_xact_id()))
        outbox.record(recorder, [an_event(an_aggregate())])
        promised(drain.db, an_aggregate())
        drain.run()
        recorder.rollback()

    risen(drain)


def test_a_row_that_waited_is_delivered_from_below_it(drain: Drain, shop: Troubled) -> None:
    aggregate = an_aggregate()
    bad, behind = promised(drain.db, aggregate, aggregate)
    shop.trouble[bad] = NOT_NOW
    drain.run()
    assert risen(drain) > behind

    del shop.trouble[bad]
    time_passes(drain.db)
    drain.run()

    assert [row_id for row_id in shop.called if row_id in (bad, behind)] == [bad, bad, behind]
    assert set(standing(drain.db)) == {"processed"}


def test_what_is_replayed_is_delivered_from_below_it(drain: Drain, shop: Troubled) -> None:
    aggregate = an_aggregate()
    ids = promised(drain.db, aggregate, aggregate)
    drain.run()
    risen(drain)

    with drain.db.begin() as session:
        selection = Selection(among=Among.DELIVERED, reservation_id=aggregate)
        replay.send_again(session, Batch(selection=selection, deed=DEED))
    drain.run()

    assert [row_id for row_id in shop.called if row_id in ids] == [*ids, *ids]


def test_a_hold_whose_time_is_over_leaves_the_rest_above_it(
    drain: Drain, shop: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    risen(drain)
    monkeypatch.setattr(draining, "SLICE_SECONDS", 0)
    ids = promised(drain.db, *(an_aggregate() for _ in range(7)))
    floors = []

    def answer(_: Row) -> Outcome:
        floors.append(floor(drain.db))
        return Delivered()

    shop.answer = answer

    drain.run()

    assert shop.called[-7:] == ids
    assert set(standing(drain.db)) == {"processed"}
    assert ids[0] <= floors[-1] < ids[-1], "it has risen from hold to hold"


def test_a_last_batch_that_leaves_a_row_ready_leaves_it_above_the_floor(drain: Drain) -> None:
    promised(drain.db, an_aggregate())
    for _ in range(3):
        with drain.db.begin() as session:
            lane = outbox.claim(session, [SHOP], "me", drain.horizon)
        assert lane is not None
        rows = fetched(drain.db, lane, after=lane.settled_to)
        with drain.db.begin() as session:
            held = [(row, Held()) for row in rows]
            outbox.settle(session, lane, held, retries=Retries(max_attempts=1), is_last=True)

    assert lane and lane.complete_to == rows[-1].id, "it could have risen"
    assert floor(drain.db) == 0


def test_a_run_that_has_reached_its_limit_leaves_the_rest_above_it(drain: Drain, shop: Troubled) -> None:
    risen(drain)
    ids = promised(drain.db, *(an_aggregate() for _ in range(5)))

    for _ in range(5):
        drain.run(limit=1)

    assert shop.called[-5:] == ids


def test_what_an_outage_has_left_ready_or_waiting_is_delivered_after_it(drain: Drain, shop: Troubled) -> None:
    risen(drain)
    one, other = an_aggregate(), an_aggregate()
    ids = promised(drain.db, one, other, one, other, one)
    shop.trouble = dict.fromkeys(ids, DOWN)
    for _ in range(3):
        drain.run()
        time_passes(drain.db)
    assert {"ready", "waiting"} & set(standing(drain.db, *ids))

    shop.trouble = {}
    drain.run()
    shop.called = list(dict.fromkeys(reversed(shop.called)))  # the last calls, the latest first

    assert [row_id for row_id in shop.called if row_id in ids[0::2]] == ids[0::2][::-1]
    assert [row_id for row_id in shop.called if row_id in ids[1::2]] == ids[1::2][::-1]
    assert set(standing(drain.db)) == {"processed"}


def test_a_sweep_finds_what_was_made_ready_by_hand_below_it(drain: Drain, shop: Troubled) -> None:
    (row_id,) = promised(drain.db, an_aggregate())
    drain.run()
    risen(drain)

    made_ready_by_hand(drain.db, row_id)
    swept(drain.db)
    drain.run()

    assert shop.called.count(row_id) == 2


def test_a_sweep_that_finds_nothing_wrong_leaves_it_where_it_is(drain: Drain) -> None:
    before = risen(drain)
    promised(drain.db, an_aggregate())

    swept(drain.db)

    assert floor(drain.db) == before


def test_ids_that_begin_anew_are_not_stuck_after_a_sweep(drain: Drain, shop: Troubled) -> None:
    risen(drain)
    shop.called.clear()
    with drain.db.begin() as session:
        session.execute(text("TRUNCATE outbox RESTART IDENTITY"))
    ids = promised(drain.db, an_aggregate())

    swept(drain.db)
    drain.run()

    assert shop.called == ids == [1]


def test_a_hold_that_is_under_way_does_not_undo_the_sweep(drain: Drain) -> None:
    (row_id,) = promised(drain.db, an_aggregate())
    drain.run()
    risen(drain)
    lane, batch = _held(drain, an_aggregate())

    made_ready_by_hand(drain.db, row_id)
    swept(drain.db)
    with drain.db.begin() as session:
        deliveries = [(one, Delivered()) for one in batch]
        outbox.settle(session, lane, deliveries, retries=Retries(max_attempts=1), is_last=True)

    assert floor(drain.db) == 0


def test_a_lane_that_is_given_back_unread_keeps_its_floor(drain: Drain) -> None:
    before = risen(drain)
    lane, _ = _held(drain, an_aggregate())

    released(drain.db, lane)

    assert floor(drain.db) == before


def _held(drain: Drain, aggregate: UUID) -> tuple[Lane, list[Row]]:
    """A lane with one new row in it, claimed as a drain does it, and the row."""
    promised(drain.db, aggregate)
    with drain.db.begin() as session:
        lane = outbox.claim(session, [SHOP], "me", drain.horizon)
    assert lane is not None
    return lane, list(fetched(drain.db, lane, after=lane.settled_to))
