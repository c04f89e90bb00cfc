"""The fence: a worker that has lost its lane can settle nothing, renew nothing and release nothing."""

from sqlalchemy import update

from domain import outbox
from domain.outbox import Delivered, Failed, LeasedLane, Outcome, Unreachable
from domain.outbox.delivery.lanes import LEASE, fence
from domain.outbox.table import lanes
from tests.domain.outbox.conftest import stored_lane
from tests.support.builders import Db
from tests.support.outbox import (
    SHOP,
    a_lane,
    an_aggregate,
    claimed,
    fetched,
    recorded_for,
    released,
    rows,
    settled,
    states,
    time_passes,
)


def renewed(db: Db, *leased: LeasedLane) -> int:
    with db.begin() as session:
        return len(outbox.renew(session, leased))


def is_fenced(db: Db, lane: LeasedLane) -> bool:
    """Return whether the fence rejects this claim."""
    with db.begin() as session:
        return not fence(session, lane)


def test_a_lease_that_was_lost_can_not_be_renewed(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    lost, kept = a_lane(shop), a_lane(shop)
    with shop.begin() as session:
        session.execute(update(lanes).where(lanes.c.lane == lost.number).values(leased_until=None))
    new = a_lane(shop)

    assert renewed(shop, lost, kept) == 1
    assert new.number == lost.number
    assert stored_lane(shop, lost)[:2] == (new.epoch, new.holder)


def test_a_worker_that_lost_its_lease_can_not_settle(shop: Db) -> None:
    recorded_for(shop, an_aggregate(), an_aggregate(), an_aggregate())
    old = a_lane(shop)
    batch = fetched(shop, old)
    time_passes(shop, LEASE)
    new = a_lane(shop)
    before = rows(shop)

    outcomes: list[Outcome] = [Delivered(), Failed("no"), Unreachable("down")]
    settlement = settled(shop, old, list(zip(batch, outcomes, strict=True)))

    assert settlement is None
    assert rows(shop) == before
    assert stored_lane(shop, new).holder == new.holder
    assert not is_fenced(shop, new)


def test_a_worker_whose_lease_has_ended_may_settle_while_no_other_has_claimed_the_lane(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)
    batch = fetched(shop, lane)
    time_passes(shop, LEASE)

    settlement = settled(shop, lane, [(batch[0], Delivered())])

    assert settlement is not None
    assert claimed(shop) is None, "settling prolongs the lease"
    assert states(shop) == ["processed"]


def test_the_fence_compares_the_holder(shop: Db) -> None:
    """A crash of the database may forget a claim, and the next claim then gets the same epoch."""
    recorded_for(shop, an_aggregate())
    forgotten = a_lane(shop)
    with shop.begin() as session:
        of_the_shop = update(lanes).where(lanes.c.destination == SHOP)
        session.execute(of_the_shop.values(epoch=0, holder=None, leased_until=None))
    new = a_lane(shop)

    assert new.epoch == forgotten.epoch
    assert is_fenced(shop, forgotten)
    assert not is_fenced(shop, new)
    assert renewed(shop, forgotten) == 0


def test_the_fence_compares_the_epoch(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    old = claimed(shop, holder="me")
    time_passes(shop, LEASE)
    new = claimed(shop, holder="me")

    assert old is not None and new is not None
    assert is_fenced(shop, old)
    assert renewed(shop, old) == 0
    assert not is_fenced(shop, new)


def test_releasing_a_lane_that_was_lost_has_no_effect(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    old = a_lane(shop)
    time_passes(shop, LEASE)
    new = a_lane(shop)

    released(shop, old)

    assert stored_lane(shop, new).holder == new.holder
    assert claimed(shop) is None
