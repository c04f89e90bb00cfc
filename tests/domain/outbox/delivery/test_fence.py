"""The fence: whoever lost a lane can write nothing, renew nothing and give nothing back."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Row, select, update

from domain import outbox
from domain.outbox import Delivered, Failed, Lane, Outcome, Unreachable
from domain.outbox.delivery.lanes import LEASE
from domain.outbox.table import lanes
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
    with_shop,
)


@pytest.fixture
def shop(db: Db) -> Db:
    return with_shop(db)


def stored(db: Db, lane: Lane) -> Row[int, int, str | None, datetime | None]:
    with db.begin() as session:
        return session.execute(
            select(lanes.c.lane, lanes.c.epoch, lanes.c.holder, lanes.c.leased_until).where(
                lanes.c.destination == lane.destination, lanes.c.lane == lane.number
            )
        ).one()


def renewed(db: Db, *held: Lane) -> int:
    with db.begin() as session:
        return outbox.renew(session, held)


def fenced(db: Db, lane: Lane) -> bool:
    """Tell whether the fence keeps this holder out."""
    with db.begin() as session:
        return not outbox.fence(session, lane)


def test_a_renewed_lease_lasts_on(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    held = [a_lane(shop), a_lane(shop)]
    time_passes(shop, LEASE - timedelta(seconds=1))

    kept = renewed(shop, *held)
    time_passes(shop, LEASE - timedelta(seconds=1))

    assert kept == 2
    assert claimed(shop) is None


def test_a_lease_that_was_lost_can_not_be_renewed(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    lost, kept = a_lane(shop), a_lane(shop)
    with shop.begin() as session:
        session.execute(update(lanes).where(lanes.c.lane == lost.number).values(leased_until=None))
    new = a_lane(shop)

    assert renewed(shop, lost, kept) == 1
    assert stored(shop, lost)[:3] == (lost.number, new.epoch, new.holder)


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
    assert stored(shop, new).holder == new.holder
    assert not fenced(shop, new)


def test_a_worker_whose_lease_ran_out_may_settle_while_nobody_else_has_claimed(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)
    batch = fetched(shop, lane)
    time_passes(shop, LEASE)

    settlement = settled(shop, lane, [(batch[0], Delivered())])

    assert settlement is not None
    assert claimed(shop) is None, "settling prolongs the lease"
    assert states(shop) == ["processed"]


def test_the_fence_names_the_holder_too(shop: Db) -> None:
    """A crash of the database may forget a claim, whose epoch is then given out again."""
    recorded_for(shop, an_aggregate())
    forgotten = a_lane(shop)
    with shop.begin() as session:
        session.execute(
            update(lanes).where(lanes.c.destination == SHOP).values(epoch=0, holder=None, leased_until=None)
        )
    new = a_lane(shop)

    assert new.epoch == forgotten.epoch
    assert fenced(shop, forgotten)
    assert not fenced(shop, new)
    assert renewed(shop, forgotten) == 0


def test_the_fence_names_the_epoch_too(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    old = claimed(shop, holder="me")
    time_passes(shop, LEASE)
    new = claimed(shop, holder="me")

    assert old is not None and new is not None
    assert fenced(shop, old)
    assert renewed(shop, old) == 0
    assert not fenced(shop, new)


def test_giving_back_what_is_not_ours_any_more_has_no_effect(shop: Db) -> None:
    recorded_for(shop, an_aggregate())
    old = a_lane(shop)
    time_passes(shop, LEASE)
    new = a_lane(shop)

    released(shop, old)

    assert stored(shop, new).holder == new.holder
    assert claimed(shop) is None
