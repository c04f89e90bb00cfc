"""Lanes that have few rows each are claimed, delivered and settled together."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select, update

from domain.outbox import LANES, NOT_SENT, LeasedLane
from domain.outbox.table import lanes
from tests.conftest import OpenRelay
from tests.support.builders import Db
from tests.support.outbox import (
    NOT_NOW,
    SHOP,
    FakeDestination,
    an_aggregate,
    claimed,
    recorded_for,
    states,
    time_passes,
)
from tests.worker.test_isolate import Step
from worker.relay.relay import Claimed, Relay
from worker.relay.tally import Tally


def claimed_by(relay: Relay) -> Claimed:
    claimed = relay.claim(relay.destinations)
    assert claimed
    return claimed


def numbers(leased: Sequence[LeasedLane]) -> set[int]:
    return {lane.number for lane in leased}


def holders(db: Db) -> int:
    """How many lanes are leased."""
    with db.begin() as session:
        return session.execute(select(func.count()).where(lanes.c.holder.is_not(None))).scalar_one()


def test_all_lanes_with_a_row_each_are_delivered_at_once_in_order_of_id(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    ids = recorded_for(relay.db, *(an_aggregate(number) for number in reversed(range(LANES))))

    batch = claimed_by(relay)

    assert len(batch.batch.lanes) == LANES
    assert [row.id for row in batch.batch.rows] == ids
    assert relay.drain(batch) == Tally(tried=LANES, processed=LANES)
    assert shop.called == ids
    assert set(states(relay.db)) == {"processed"}
    assert holders(relay.db) == 0


def test_a_lane_with_many_rows_is_drained_alone(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination(), batch_size=2 * LANES)
    recorded_for(relay.db, *(an_aggregate(number) for number in (0, 0, 0, 1, 1, 2)))

    batches = [claimed_by(relay), claimed_by(relay)]

    assert sorted(map(numbers, (one.batch.lanes for one in batches)), key=len) == [{0}, {1, 2}]


def test_a_lane_with_waiting_rows_that_are_due_is_drained_alone(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    (failing,) = recorded_for(relay.db, an_aggregate(0))
    shop.failures[failing] = NOT_NOW
    relay.run()
    time_passes(relay.db)
    recorded_for(relay.db, *(an_aggregate(number) for number in (0, 1, 2)))

    batches = [claimed_by(relay), claimed_by(relay)]

    assert sorted(map(numbers, (one.batch.lanes for one in batches)), key=len) == [{0}, {1, 2}]


def test_a_lane_that_was_lost_is_left_out_and_the_others_are_settled(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination())
    recorded_for(relay.db, *(an_aggregate(number) for number in range(3)))
    together = claimed_by(relay)
    lost = together.batch.lanes[1]
    with relay.db.begin() as session:
        ended = update(lanes).where(lanes.c.lane == lost.number)
        session.execute(ended.values(leased_until=func.clock_timestamp() - timedelta(seconds=1)))
    taken_over = claimed(relay.db)

    assert relay.drain(together) == Tally(tried=3, processed=2, fenced=1)

    assert taken_over and taken_over.number == lost.number
    assert states(relay.db, lost.number + 1) == ["ready"]
    assert holders(relay.db) == 1


def test_a_row_that_is_not_delivered_keeps_the_low_watermark_of_its_own_lane_alone(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    for _ in range(3):
        recorded_for(relay.db, *(an_aggregate(number) for number in range(3)))
        relay.run()
    left, *_ = recorded_for(relay.db, *(an_aggregate(number) for number in range(3)))
    shop.failures[left] = NOT_SENT
    before = watermarks(relay.db)

    relay.drain(claimed_by(relay))

    after = watermarks(relay.db)
    assert [later > earlier for earlier, later in zip(before, after, strict=True)] == [False, True, True]


def watermarks(db: Db) -> list[int]:
    """Return the low watermarks of the first three lanes."""
    with db.begin() as session:
        found = (
            select(lanes.c.low_watermark).where(lanes.c.destination == SHOP, lanes.c.lane < 3).order_by(lanes.c.lane)
        )
        return list(session.execute(found).scalars())


def test_a_poisonous_effect_of_one_lane_fails_alone(relay_to: OpenRelay) -> None:
    shop = Step()
    relay = relay_to(shop)
    first, bad, last = recorded_for(relay.db, *(an_aggregate(number) for number in range(3)))
    shop.poisonous = {bad}

    assert relay.drain(claimed_by(relay)) == Tally(tried=3, processed=2, waiting=1)

    assert shop.applied == [first, last]
    assert states(relay.db) == ["processed", "waiting", "processed"]
    assert holders(relay.db) == 0
