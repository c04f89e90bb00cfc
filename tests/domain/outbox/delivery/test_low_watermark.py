"""The low watermark of a lane: no claim reads the rows below it, and no row below it ever has to be read."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.orm import Session

from domain import outbox
from domain.outbox import Delivered, History, LeasedLane, NotSent, Outcome, Row
from domain.outbox.operations import replay
from domain.outbox.operations.bulk_change import Batch
from domain.outbox.operations.selection import Among, Selection
from domain.outbox.table import lanes
from domain.outbox.table import outbox as table
from domain.runtime.database import connect, sessions
from domain.runtime.settings import Settings
from tests.conftest import OpenRelay
from tests.domain.outbox.test_plans import DESCENT, claim, executed
from tests.support.builders import Db, an_event, routes_of
from tests.support.operations import ENTRY
from tests.support.outbox import (
    DOWN,
    NOT_NOW,
    SHOP,
    FakeDestination,
    a_retry_policy,
    an_aggregate,
    fetched,
    recorded_for,
    released,
    states,
    time_passes,
)
from worker import maintenance
from worker.relay import lane_run
from worker.relay.relay import Relay


def low_watermark(db: Db, lane: int = 0) -> int:
    stored = select(lanes.c.low_watermark).where(lanes.c.destination == SHOP, lanes.c.lane == lane)
    with db.begin() as session:
        return int(session.execute(stored).scalar_one())


def risen(relay: Relay) -> int:
    """Record and deliver until the low watermark of lane 0 is above all rows of before. Return the watermark."""
    (newest,) = recorded_for(relay.db, an_aggregate())
    relay.run()
    for _ in range(3):
        recorded_for(relay.db, an_aggregate())
        relay.run()
    watermark = low_watermark(relay.db)
    assert watermark >= newest
    return watermark


def maintained(db: Db) -> None:
    """Run the maintenance that resets wrong low watermarks."""
    maintenance.reset_low_watermarks(db)


def made_ready_by_hand(db: Db, row_id: int) -> None:
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == row_id).values(processed_at=None))


def recorded_late(session: Session, relay: Relay, aggregate: UUID) -> int:
    """Record an event in a transaction that stays open. Return the id of its row."""
    outbox.record(session, [an_event(aggregate)], routes_of(relay.db))
    return int(session.execute(select(table.c.id).where(table.c.aggregate_id == aggregate)).scalar_one())


def begin(session: Session) -> None:
    """Give a transaction its id, as locking the aggregate does."""
    session.execute(select(func.pg_current_xact_id()))


def leased(relay: Relay, aggregate: UUID) -> tuple[LeasedLane, list[Row]]:
    """Record an event, claim its lane as the relay does, and return the lane and its new row."""
    recorded_for(relay.db, aggregate)
    with relay.db.begin() as session:
        lane = outbox.claim(session, [SHOP], "me", relay.commit_horizon)
    assert lane is not None
    return lane, list(fetched(relay.db, lane, after=lane.low_watermark))


@pytest.fixture
def server() -> FakeDestination:
    return FakeDestination()


@pytest.fixture
def relay(relay_to: OpenRelay, server: FakeDestination) -> Relay:
    return relay_to(server, batch_size=2)


@pytest.fixture
def old_snapshot(engine: Engine) -> Iterator[None]:
    """A transaction reads from a snapshot that is as old as the test, and younger than the rows of other tests."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # What was deleted before the snapshot would stay in the indexes as long as the snapshot is there.
        connection.execute(text("VACUUM FULL outbox, outbox_lanes"))
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text("SELECT FROM outbox"))
        yield
        connection.execute(text("SELECT FROM outbox"))


@pytest.fixture
def workers(settings: Settings) -> Iterator[Engine]:
    """Workers connect in this way: statistics that are gathered meanwhile do not change their plans."""
    engine = connect(settings, connections=1, by_index=True)
    yield engine
    engine.dispose()


def test_the_watermark_rises_to_the_rows_that_an_earlier_run_has_settled(relay: Relay) -> None:
    for _ in range(3):
        last, *_ = recorded_for(relay.db, an_aggregate())
        before = last - 1
        relay.run()

    assert low_watermark(relay.db) == before
    assert low_watermark(relay.db, 1) == 0


def test_the_watermark_rises_under_an_old_snapshot_and_a_claim_then_reads_no_settled_row(
    relay_to: OpenRelay, workers: Engine, old_snapshot: None
) -> None:
    relay = relay_to(FakeDestination())
    recorded_for(relay.db, *(an_aggregate() for _ in range(2_000)))
    relay.run()
    risen(relay)
    recorded_for(relay.db, an_aggregate())

    assert executed(sessions(workers), claim).pages <= 2 * 32 * DESCENT


@pytest.mark.parametrize("runs", [1, 5])
def test_a_row_that_commits_late_is_never_below_the_watermark(relay: Relay, server: FakeDestination, runs: int) -> None:
    aggregate = an_aggregate()
    risen(relay)

    with relay.db.begin() as recorder:
        begin(recorder)
        late = recorded_late(recorder, relay, aggregate)
        for _ in range(runs):
            last, _ = recorded_for(relay.db, an_aggregate(), an_aggregate())
            relay.run()
        assert low_watermark(relay.db) < late < last
    (after,) = recorded_for(relay.db, aggregate)
    relay.run()

    assert [row_id for row_id in server.called if row_id in (late, after)] == [late, after]
    assert set(states(relay.db)) == {"processed"}


def test_a_row_of_the_youngest_transaction_is_never_below_the_watermark(relay: Relay, server: FakeDestination) -> None:
    """A snapshot does not show a transaction that is younger than all those that have ended."""
    aggregate = an_aggregate()
    risen(relay)
    recorded_for(relay.db, an_aggregate(1), an_aggregate())

    with relay.db.begin() as elder, relay.db.begin() as recorder:
        for session in (elder, recorder):
            begin(session)
        late = recorded_late(recorder, relay, aggregate)
        recorded_late(elder, relay, an_aggregate())
        elder.commit()
        relay.run()
        assert low_watermark(relay.db) < late
    (after,) = recorded_for(relay.db, aggregate)
    relay.run()

    assert [row_id for row_id in server.called if row_id in (late, after)] == [late, after]


def test_a_transaction_that_recorded_and_rolled_back_does_not_keep_the_watermark_down_for_ever(relay: Relay) -> None:
    with relay.db() as recorder:
        begin(recorder)
        recorded_late(recorder, relay, an_aggregate())
        recorded_for(relay.db, an_aggregate())
        relay.run()
        recorder.rollback()

    risen(relay)


def test_a_row_that_waited_is_delivered_though_it_is_below_the_watermark(relay: Relay, server: FakeDestination) -> None:
    aggregate = an_aggregate()
    bad, behind = recorded_for(relay.db, aggregate, aggregate)
    server.failures[bad] = NOT_NOW
    relay.run()
    assert risen(relay) > behind

    del server.failures[bad]
    time_passes(relay.db)
    relay.run()

    assert [row_id for row_id in server.called if row_id in (bad, behind)] == [bad, bad, behind]
    assert set(states(relay.db)) == {"processed"}


def test_a_replayed_row_is_delivered_though_it_is_below_the_watermark(relay: Relay, server: FakeDestination) -> None:
    aggregate = an_aggregate()
    ids = recorded_for(relay.db, aggregate, aggregate)
    relay.run()
    risen(relay)

    with relay.db.begin() as session:
        selection = Selection(among=Among.DELIVERED, reservation_id=aggregate)
        replay.replay(session, Batch(selection=selection, entry=ENTRY), routes_of(relay.db).step_types)
    relay.run()

    assert [row_id for row_id in server.called if row_id in ids] == [*ids, *ids]


def test_a_run_whose_time_is_over_keeps_the_watermark_below_the_rows_that_it_has_not_read(
    relay: Relay, server: FakeDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    risen(relay)
    monkeypatch.setattr(lane_run, "SLICE_SECONDS", 0)
    ids = recorded_for(relay.db, *(an_aggregate() for _ in range(7)))
    watermarks = []

    def answer(_: Row) -> Outcome:
        watermarks.append(low_watermark(relay.db))
        return Delivered()

    server.answer = answer

    relay.run()

    assert server.called[-7:] == ids
    assert set(states(relay.db)) == {"processed"}
    assert ids[0] <= watermarks[-1] < ids[-1], "it has risen from run to run"


def test_the_watermark_stays_below_a_row_of_the_last_batch_that_is_still_ready(relay: Relay) -> None:
    recorded_for(relay.db, an_aggregate())
    for _ in range(3):
        with relay.db.begin() as session:
            lane = outbox.claim(session, [SHOP], "me", relay.commit_horizon)
        assert lane is not None
        rows = fetched(relay.db, lane, after=lane.low_watermark)
        with relay.db.begin() as session:
            not_sent = [(row, NotSent()) for row in rows]
            outbox.settle(session, [lane], not_sent, retry_policy=a_retry_policy(), history=History(), is_last=True)

    assert lane and lane.commit_horizon == rows[-1].id, "it could have risen"
    assert low_watermark(relay.db) == 0


def test_a_run_that_has_reached_its_limit_keeps_the_watermark_below_the_other_rows(
    relay: Relay, server: FakeDestination
) -> None:
    risen(relay)
    ids = recorded_for(relay.db, *(an_aggregate() for _ in range(5)))

    for _ in range(5):
        relay.run(limit=1)

    assert server.called[-5:] == ids


def test_rows_that_were_not_delivered_in_an_outage_are_delivered_after_it(
    relay: Relay, server: FakeDestination
) -> None:
    risen(relay)
    aggregates = [an_aggregate() for _ in range(6)]
    ids = recorded_for(relay.db, *aggregates, *aggregates)
    server.failures = dict.fromkeys(ids, DOWN)
    # Longer than each row needs to be tried once, and to be made ready again.
    for _ in range(2 * len(ids)):
        relay.run()
        time_passes(relay.db)
    assert {"ready", "waiting"} & set(states(relay.db, *ids))

    server.failures = {}
    relay.run(limit=1)
    relay.run()
    last_calls = list(dict.fromkeys(reversed(server.called)))  # the latest first

    for first, second in zip(ids[:6], ids[6:], strict=True):
        assert last_calls.index(second) < last_calls.index(first)
    assert set(states(relay.db)) == {"processed"}


def test_maintenance_resets_the_watermark_above_a_row_that_was_made_ready_by_hand(
    relay: Relay, server: FakeDestination
) -> None:
    (row_id,) = recorded_for(relay.db, an_aggregate())
    relay.run()
    risen(relay)

    made_ready_by_hand(relay.db, row_id)
    maintained(relay.db)
    relay.run()

    assert server.called.count(row_id) == 2


def test_maintenance_keeps_a_watermark_that_is_right(relay: Relay) -> None:
    before = risen(relay)
    recorded_for(relay.db, an_aggregate())

    maintained(relay.db)

    assert low_watermark(relay.db) == before


def test_after_maintenance_ids_that_begin_anew_are_delivered(relay: Relay, server: FakeDestination) -> None:
    risen(relay)
    server.called.clear()
    with relay.db.begin() as session:
        session.execute(text("TRUNCATE outbox RESTART IDENTITY"))
    ids = recorded_for(relay.db, an_aggregate())

    maintained(relay.db)
    relay.run()

    assert server.called == ids == [1]


def test_a_run_that_is_under_way_keeps_the_reset_of_the_watermark(relay: Relay) -> None:
    (row_id,) = recorded_for(relay.db, an_aggregate())
    relay.run()
    risen(relay)
    lane, batch = leased(relay, an_aggregate())

    made_ready_by_hand(relay.db, row_id)
    maintained(relay.db)
    with relay.db.begin() as session:
        deliveries = [(one, Delivered()) for one in batch]
        outbox.settle(session, [lane], deliveries, retry_policy=a_retry_policy(), history=History(), is_last=True)

    assert low_watermark(relay.db) == 0


def test_a_lane_that_is_released_unread_keeps_its_watermark(relay: Relay) -> None:
    before = risen(relay)
    lane, _ = leased(relay, an_aggregate())

    released(relay.db, lane)

    assert low_watermark(relay.db) == before
