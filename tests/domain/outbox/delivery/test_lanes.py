"""Lanes: an aggregate always has the same one, destinations are registered once, and a renewed lease lasts."""

from datetime import timedelta

from domain import outbox
from domain.outbox.delivery.lanes import LEASE
from domain.outbox.table import LANES, lane_of
from tests.domain.outbox.conftest import set_shop, stored_lane
from tests.support.builders import Db
from tests.support.outbox import SHOP, a_lane, an_aggregate, claimed, recorded_for, time_passes


def test_an_aggregate_always_has_the_same_lane() -> None:
    for lane in range(LANES):
        assert lane_of(an_aggregate(lane)) == lane


def test_registering_a_known_destination_again_changes_nothing(shop: Db) -> None:
    recorded_for(shop, an_aggregate(3))
    lane = a_lane(shop)
    set_shop(shop, paused=True)

    with shop.begin() as session:
        outbox.register(session, [SHOP])

    assert stored_lane(shop, lane).holder == lane.holder
    assert claimed(shop) is None


def test_a_renewed_lease_lasts_for_another_lease(shop: Db) -> None:
    recorded_for(shop, an_aggregate(1), an_aggregate(2))
    leased = [a_lane(shop), a_lane(shop)]
    time_passes(shop, LEASE - timedelta(seconds=1))

    with shop.begin() as session:
        renewed = outbox.renew(session, leased)
    time_passes(shop, LEASE - timedelta(seconds=1))

    assert renewed == set(leased)
    assert claimed(shop) is None
