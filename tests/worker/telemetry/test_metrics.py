"""Metrics: what an operator sees of the outbox, the workers and the API, and that looking costs nothing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import func, update

from domain.outbox import Delivered, Outcome, Rejected, Row
from domain.outbox.delivery import breaker
from domain.outbox.operations import status
from domain.outbox.operations.status import Standing
from domain.outbox.operations.status_cache import FIGURES, StatusCache
from domain.outbox.table import destinations
from domain.outbox.table import outbox as table
from tests.conftest import OpenRelay
from tests.support.builders import Db, an_event, recorded
from tests.support.outbox import (
    DOWN,
    NOT_NOW,
    SHOP,
    Outside,
    Troubled,
    an_aggregate,
    claimed,
    recorded_for,
    time_passes,
    with_shop,
)
from worker.telemetry import metrics

NOTHING = {"pending": 0, "waiting": 0, "dead": 0, "oldest_pending_age_seconds": 0, "breaker_open": 0, "paused": 0}


def seen(db: Db, destination: str = SHOP) -> Standing:
    with db.begin() as session:
        (found,) = [one for one in status.look(session) if one.name == destination]
    return found


def aged(db: Db, row_id: int, by: timedelta) -> None:
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == row_id).values(created_at=table.c.created_at - by))


def test_a_destination_with_nothing_to_do_is_shown_all_the_same(db: Db) -> None:
    shop = with_shop(db)

    found = seen(shop)

    assert {figure: getattr(found, figure) for figure in FIGURES} == NOTHING


def test_what_is_pending_waits_or_is_dead_is_counted(relay_to: OpenRelay) -> None:
    shop = Troubled()
    relay = relay_to(shop)
    one, other = an_aggregate(1), an_aggregate(2)
    first, _, dead, _ = recorded_for(relay.db, one, one, other, other)
    shop.trouble = {first: NOT_NOW, dead: Rejected("no")}
    relay.run()
    recorded_for(relay.db, an_aggregate(3))

    found = seen(relay.db)

    assert (found.pending, found.waiting, found.dead) == (3, 2, 1)


@pytest.mark.parametrize("trouble", [None, NOT_NOW])
def test_the_age_is_that_of_the_oldest_row_whether_it_is_ready_or_waits(
    relay_to: OpenRelay, trouble: Outcome | None
) -> None:
    shop = Troubled()
    relay = relay_to(shop)
    oldest, younger = recorded_for(relay.db, an_aggregate(7), an_aggregate(3))
    aged(relay.db, oldest, timedelta(days=9))
    aged(relay.db, younger, timedelta(days=8))
    if trouble:
        shop.trouble = {oldest: trouble, younger: trouble}
        relay.run()

    assert timedelta(days=9).total_seconds() <= seen(relay.db).oldest_pending_age_seconds < 9.1 * 86_400


def test_a_replayed_row_is_as_old_as_its_replay(db: Db) -> None:
    shop = with_shop(db)
    (row_id,) = recorded_for(shop, an_aggregate())
    aged(shop, row_id, timedelta(days=9))
    with shop.begin() as session:
        session.execute(update(table).values(replayed_at=table.c.created_at + timedelta(days=9)))

    assert seen(shop).oldest_pending_age_seconds < 3_600


def test_a_replayed_row_does_not_hide_an_older_one_that_waits(relay_to: OpenRelay) -> None:
    shop = Troubled()
    relay = relay_to(shop)
    replayed, oldest = recorded_for(relay.db, an_aggregate(7), an_aggregate(7))
    shop.trouble = {replayed: NOT_NOW, oldest: NOT_NOW}
    relay.run()
    aged(relay.db, oldest, timedelta(days=9))
    with relay.db.begin() as session:
        session.execute(update(table).where(table.c.id == replayed).values(replayed_at=func.now()))

    assert seen(relay.db).oldest_pending_age_seconds >= timedelta(days=9).total_seconds()


def test_discarded_rows_are_not_dead_ones_any_more(relay_to: OpenRelay) -> None:
    relay = relay_to(Outside(lambda _: Rejected("no")))
    recorded_for(relay.db, an_aggregate())
    relay.run()
    with relay.db.begin() as session:
        session.execute(update(table).values(discarded_at=table.c.dead_at))

    assert seen(relay.db).dead == 0


def test_rows_of_a_destination_that_nobody_knows_are_counted(db: Db) -> None:
    unknown = with_shop(db, name="gone")
    recorded(unknown, an_event(an_aggregate()))
    with db.begin() as session:
        session.execute(destinations.delete().where(destinations.c.name == "gone"))

    found = seen(db, "gone")

    assert (found.pending, found.breaker_open, found.paused) == (1, False, False)


def test_an_outage_and_a_pause_are_shown(relay_to: OpenRelay) -> None:
    shop = Outside(lambda _: DOWN)
    relay = relay_to(shop)
    recorded_for(relay.db, an_aggregate())
    relay.run()
    down = seen(relay.db)
    shop.answer = lambda _: Delivered()
    time_passes(relay.db)
    relay.run()
    with relay.db.begin() as session:
        breaker.pause(session, SHOP, reason="closed for stock-taking")

    assert (down.breaker_open, down.paused) == (True, False)
    assert (seen(relay.db).breaker_open, seen(relay.db).paused) == (False, True)


def test_who_asks_again_at_once_gets_the_same_answer(db: Db) -> None:
    shop = with_shop(db)
    watch = StatusCache(shop)
    recorded_for(shop, an_aggregate())
    before = watch.seen()
    recorded_for(shop, an_aggregate())

    assert watch.seen() is before
    assert StatusCache(shop).seen() != before


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"destination": SHOP} | labels) or 0.0


def grown(name: str, **labels: str) -> Callable[[], float]:
    """Return how to tell by how much a metric has grown since now."""
    before = counted(name, **labels)
    return lambda: counted(name, **labels) - before


KINDS = ("delivered", "failed", "rejected", "unreachable", "died", "fenced")


@pytest.mark.parametrize(
    ("outcome", "kinds"),
    [
        (Delivered(), {"delivered"}),
        (NOT_NOW, {"failed"}),
        (Rejected("no"), {"rejected", "died"}),
        (DOWN, {"unreachable"}),
    ],
)
def test_what_became_of_a_delivery_is_counted(relay_to: OpenRelay, outcome: Outcome, kinds: set[str]) -> None:
    relay = relay_to(Outside(lambda _: outcome))
    recorded_for(relay.db, an_aggregate())
    growth = {kind: grown(f"holdfast_outbox_{kind}_total") for kind in KINDS}

    relay.run()

    assert {kind for kind, by in growth.items() if by()} == kinds
    assert all(by() == 1 for kind, by in growth.items() if kind in kinds)


def test_the_last_attempt_is_a_failure_and_a_death(relay_to: OpenRelay) -> None:
    relay = relay_to(Outside(lambda _: NOT_NOW), max_attempts=1)
    recorded_for(relay.db, an_aggregate())
    failed, died = grown("holdfast_outbox_failed_total"), grown("holdfast_outbox_died_total")

    relay.run()

    assert (failed(), died()) == (1, 1)


def test_rows_sent_under_a_lost_lease_are_counted_and_a_lane_is_held_meanwhile(relay_to: OpenRelay) -> None:
    relay = relay_to(Outside())
    recorded_for(relay.db, an_aggregate())
    fenced, held, during = grown("holdfast_outbox_fenced_total"), grown("holdfast_lanes_held"), []

    def freeze(_: Row) -> Outcome:
        during.append(held())
        time_passes(relay.db)
        assert claimed(relay.db) is not None
        return Delivered()

    relay.destinations[SHOP].answer = freeze  # type: ignore[attr-defined]
    relay.run()

    assert (fenced(), during, held()) == (1, [1], 0)


def test_the_time_from_commit_to_delivery_is_the_databases(relay_to: OpenRelay) -> None:
    relay = relay_to(Outside())
    ids = recorded_for(relay.db, *(an_aggregate(1) for _ in range(3)))
    for row_id, age in zip(ids, (timedelta(seconds=20), timedelta(minutes=4), timedelta(days=9)), strict=True):
        aged(relay.db, row_id, age)
    name = "holdfast_outbox_commit_to_delivered_seconds"
    bounds = ("10.0", "30.0", "60.0", "300.0", "3600.0", "+Inf")
    growth = [grown(f"{name}_bucket", le=bound) for bound in bounds]
    number, total = grown(f"{name}_count"), grown(f"{name}_sum")

    relay.run()

    assert [by() for by in growth] == [0, 1, 1, 2, 2, 3]
    assert number() == 3
    assert 9 * 86_400 + 260 <= total() < 9 * 86_400 + 320


def test_a_replay_does_not_count_as_a_late_delivery(relay_to: OpenRelay) -> None:
    relay = relay_to(Outside())
    recorded_for(relay.db, an_aggregate())
    with relay.db.begin() as session:
        session.execute(update(table).values(headers={"replayed": "true"}))
    delivered = grown("holdfast_outbox_delivered_total")
    timed = grown("holdfast_outbox_commit_to_delivered_seconds_count")

    relay.run()

    assert (delivered(), timed()) == (1, 0)


@pytest.mark.parametrize("offset", [-0.001, 0.0, 0.001])
def test_many_observed_at_once_are_as_many_observed_one_by_one(offset: float) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    ages = [bound + offset for bound in metrics.BUCKETS for _ in range(2)] + [1e6, 0.0]
    name = "holdfast_outbox_commit_to_delivered_seconds"

    metrics.Ages("many").add([at - timedelta(seconds=age) for age in reversed(ages)], at)
    for age in ages:
        metrics.AGE.labels("one by one").observe(age)

    shown = {
        destination: {
            sample.labels["le"]: sample.value
            for sample in next(iter(metrics.AGE.collect())).samples
            if sample.name == f"{name}_bucket" and sample.labels["destination"] == destination
        }
        for destination in ("many", "one by one")
    }
    metrics.AGE.remove("many")
    metrics.AGE.remove("one by one")
    assert shown["many"] == shown["one by one"]
