"""The status of a destination: what is pending, how old it is, and whether it is down or paused."""

from datetime import timedelta

import pytest
from sqlalchemy import func, update

from domain.outbox import Delivered, Outcome, Rejected
from domain.outbox.delivery import breaker
from domain.outbox.operations import status
from domain.outbox.operations.status import CountedStatus
from domain.outbox.operations.status_cache import FIGURES, StatusCache, fresh_for
from domain.outbox.table import destinations
from domain.outbox.table import outbox as table
from tests.conftest import OpenRelay
from tests.support.builders import Db, an_event, recorded
from tests.support.outbox import (
    DOWN,
    NOT_NOW,
    SHOP,
    FakeDestination,
    a_lane,
    aged,
    an_aggregate,
    leases_renewed,
    recorded_for,
    time_passes,
    with_shop,
)

NOTHING = {"pending": 0, "waiting": 0, "dead": 0, "oldest_pending_age_seconds": 0, "breaker_open": 0, "paused": 0}


def status_of(db: Db, destination: str = SHOP) -> CountedStatus:
    with db.begin() as session:
        (found,) = [one for one in status.read_statuses(session) if one.name == destination]
    return found


def test_a_destination_without_rows_has_a_status(db: Db) -> None:
    shop = with_shop(db)

    found = status_of(shop)

    assert {figure: getattr(found, figure) for figure in FIGURES} == NOTHING


def test_pending_waiting_and_dead_rows_are_counted(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    one, other = an_aggregate(1), an_aggregate(2)
    first, _, dead, _ = recorded_for(relay.db, one, one, other, other)
    shop.failures = {first: NOT_NOW, dead: Rejected("no")}
    relay.run()
    recorded_for(relay.db, an_aggregate(3))

    found = status_of(relay.db)

    assert (found.pending, found.waiting, found.dead) == (3, 2, 1)


@pytest.mark.parametrize("by", [timedelta(hours=2), -timedelta(hours=2)], ids=["it has ended", "the clock steps back"])
def test_a_lane_is_leased_until_its_lease_ends_and_not_if_the_clock_has_stepped_back(db: Db, by: timedelta) -> None:
    shop = with_shop(db)
    recorded_for(shop, an_aggregate())
    lane = a_lane(shop)

    with leases_renewed(shop):
        assert status_of(shop).holders == [lane.holder]
    time_passes(shop, by)

    assert status_of(shop).holders == []


@pytest.mark.parametrize("trouble", [None, NOT_NOW])
def test_the_age_is_that_of_the_oldest_row_whether_it_is_ready_or_waits(
    relay_to: OpenRelay, trouble: Outcome | None
) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    oldest, younger = recorded_for(relay.db, an_aggregate(7), an_aggregate(3))
    aged(relay.db, oldest, timedelta(days=9))
    aged(relay.db, younger, timedelta(days=8))
    if trouble:
        shop.failures = {oldest: trouble, younger: trouble}
        relay.run()

    assert timedelta(days=9).total_seconds() <= status_of(relay.db).oldest_pending_age_seconds < 9.1 * 86_400


def test_a_replayed_row_is_as_old_as_its_replay(db: Db) -> None:
    shop = with_shop(db)
    (row_id,) = recorded_for(shop, an_aggregate())
    aged(shop, row_id, timedelta(days=9))
    with shop.begin() as session:
        session.execute(update(table).values(replayed_at=table.c.created_at + timedelta(days=9)))

    assert status_of(shop).oldest_pending_age_seconds < 3_600


def test_a_replayed_row_does_not_hide_an_older_one_that_waits(relay_to: OpenRelay) -> None:
    shop = FakeDestination()
    relay = relay_to(shop)
    replayed, oldest = recorded_for(relay.db, an_aggregate(7), an_aggregate(7))
    shop.failures = {replayed: NOT_NOW, oldest: NOT_NOW}
    relay.run()
    aged(relay.db, oldest, timedelta(days=9))
    with relay.db.begin() as session:
        session.execute(update(table).where(table.c.id == replayed).values(replayed_at=func.now()))

    assert status_of(relay.db).oldest_pending_age_seconds >= timedelta(days=9).total_seconds()


def test_discarded_rows_do_not_count_as_dead(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination(lambda _: Rejected("no")))
    recorded_for(relay.db, an_aggregate())
    relay.run()
    with relay.db.begin() as session:
        session.execute(update(table).values(discarded_at=table.c.dead_at))

    assert status_of(relay.db).dead == 0


def test_rows_of_an_unregistered_destination_are_counted(db: Db) -> None:
    unknown = with_shop(db, name="gone")
    recorded(unknown, an_event(an_aggregate()))
    with db.begin() as session:
        session.execute(destinations.delete().where(destinations.c.name == "gone"))

    found = status_of(db, "gone")

    assert (found.pending, found.breaker_open, found.paused) == (1, False, False)


def test_an_outage_and_a_pause_are_shown(relay_to: OpenRelay) -> None:
    shop = FakeDestination(lambda _: DOWN)
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate())
    relay.run()
    down = status_of(relay.db)
    shop.answer = lambda _: Delivered()
    time_passes(relay.db)
    relay.run()
    with relay.db.begin() as session:
        breaker.pause(session, SHOP, reason="closed for stock-taking")

    assert (down.breaker_open, down.paused) == (True, False)
    assert (status_of(relay.db).breaker_open, status_of(relay.db).paused) == (False, True)


def test_the_status_is_not_read_again_at_once(db: Db) -> None:
    shop = with_shop(db)
    cache = StatusCache(shop)
    recorded_for(shop, an_aggregate())
    before = cache.get()
    recorded_for(shop, an_aggregate())

    assert cache.get() is before
    assert StatusCache(shop).get() != before


def test_a_status_that_was_slow_to_read_is_used_for_longer_but_never_for_a_minute() -> None:
    assert [fresh_for(seconds) for seconds in (0.01, 0.5, 4)] == [5, 9.5, 20]
