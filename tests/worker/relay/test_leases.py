"""Leases: the lanes of a process are renewed while it lives, and released when it ends."""

from collections.abc import Iterator
from datetime import datetime

import pytest
from sqlalchemy import func, select, update

from domain.outbox import LeasedLane
from domain.outbox.delivery import breaker
from domain.outbox.table import destinations, lanes
from tests.support.builders import Db
from tests.support.outbox import SHOP, a_lane, an_aggregate, claimed, destination, recorded_for, with_shop
from tests.support.waiting import wait_until
from worker.relay.leases import Leases


@pytest.fixture
def shop(db: Db) -> Db:
    sessions = with_shop(db)
    recorded_for(sessions, an_aggregate(1), an_aggregate(2))
    return sessions


@pytest.fixture
def leases(shop: Db) -> Iterator[Leases]:
    leases = Leases(shop)
    yield leases
    leases.close()


def leased_until(db: Db, lane: LeasedLane) -> datetime:
    mine = select(lanes.c.leased_until).where(lanes.c.destination == lane.destination, lanes.c.lane == lane.number)
    with db.begin() as session:
        moment: datetime = session.execute(mine).scalar_one()
    return moment


def test_all_leased_lanes_are_renewed_and_no_others(shop: Db, leases: Leases) -> None:
    kept, dropped = a_lane(shop), a_lane(shop)
    before = leased_until(shop, kept), leased_until(shop, dropped)
    with leases.renewing(dropped):
        pass

    with leases.renewing(kept):
        wait_until("the lease is renewed", lambda: leased_until(shop, kept) > before[0])

    assert leased_until(shop, dropped) == before[1]


def test_a_delivery_that_never_ends_loses_its_lane(shop: Db, leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.relay.leases.LONGEST_RUN_SECONDS", 0.0)
    hanging, _ = a_lane(shop), a_lane(shop)

    with leases.renewing(hanging):
        wait_until(
            "another claim has the lane", lambda: hanging.number in {lane.number for lane in [claimed(shop)] if lane}
        )


def test_a_lease_that_was_lost_is_not_taken_back(shop: Db, leases: Leases) -> None:
    lost, kept = a_lane(shop), a_lane(shop)
    before = leased_until(shop, kept)
    with shop.begin() as session:
        session.execute(update(lanes).where(lanes.c.lane == lost.number).values(leased_until=None))
    new = a_lane(shop)
    until = leased_until(shop, new)

    with leases.renewing(lost), leases.renewing(kept):
        wait_until("the lease is renewed", lambda: leased_until(shop, kept) > before)

    assert leased_until(shop, new) == until


def test_a_lane_that_is_being_settled_does_not_keep_the_others_from_being_renewed(shop: Db, leases: Leases) -> None:
    settling, other = a_lane(shop), a_lane(shop)
    before = leased_until(shop, other)

    with shop.begin() as session, leases.renewing(settling), leases.renewing(other):
        session.execute(select(lanes).where(lanes.c.lane == settling.number).with_for_update())
        wait_until("the other lease is renewed", lambda: leased_until(shop, other) > before)


def test_the_lease_of_a_probe_that_takes_long_is_renewed(shop: Db, leases: Leases) -> None:
    with shop.begin() as session:
        session.execute(update(destinations).values(failures=1, open_until=func.now()))
    probe = a_lane(shop)
    before = destination(shop).open_until

    with leases.renewing(probe):
        wait_until("the lease of the probe is renewed", lambda: destination(shop).open_until > before)
        assert claimed(shop) is None

    assert probe.probing


def test_a_probe_that_has_ended_does_not_delay_others(shop: Db, leases: Leases) -> None:
    with shop.begin() as session:
        session.execute(update(destinations).values(failures=1, open_until=func.now()))
    probe = a_lane(shop)
    before = leased_until(shop, probe)
    with shop.begin() as session:
        breaker.close(session, SHOP)

    with leases.renewing(probe):
        wait_until("the lease is renewed", lambda: leased_until(shop, probe) > before)

    assert destination(shop).open_until is None


def test_a_run_that_raises_is_renewed_no_longer(shop: Db, leases: Leases) -> None:
    lane = a_lane(shop)

    with pytest.raises(ValueError, match="poison"), leases.renewing(lane):
        raise ValueError("poison")

    assert not leases._leased


def test_a_process_that_ends_releases_the_lane_of_a_call_that_has_not_ended(shop: Db) -> None:
    leases = Leases(shop)
    lane, other = a_lane(shop), a_lane(shop)

    with leases.renewing(lane):
        leases.close()

    again = claimed(shop)
    assert again is not None and again.number == lane.number
    assert claimed(shop) is None, f"lane {other.number} was never renewed by it"
