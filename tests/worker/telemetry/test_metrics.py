"""The metrics of workers: what became of deliveries, and how long they took."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import update

from domain.outbox import Delivered, Outcome, Rejected, Row
from domain.outbox.table import outbox as table
from tests.conftest import OpenRelay
from tests.support.outbox import (
    DOWN,
    NOT_NOW,
    SHOP,
    FakeDestination,
    aged,
    an_aggregate,
    claimed,
    recorded_for,
    time_passes,
)
from worker.telemetry import metrics


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"destination": SHOP} | labels) or 0.0


def grown(name: str, **labels: str) -> Callable[[], float]:
    """Return a function that tells by how much a metric has grown since now."""
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
    relay = relay_to(FakeDestination(lambda _: outcome))
    recorded_for(relay.db, an_aggregate())
    growth = {kind: grown(f"holdfast_outbox_{kind}_total") for kind in KINDS}

    relay.run()

    assert {kind for kind, by in growth.items() if by()} == kinds
    assert all(by() == 1 for kind, by in growth.items() if kind in kinds)


def test_the_last_attempt_is_a_failure_and_a_death(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination(lambda _: NOT_NOW), max_attempts=1)
    recorded_for(relay.db, an_aggregate())
    failed, died = grown("holdfast_outbox_failed_total"), grown("holdfast_outbox_died_total")

    relay.run()

    assert (failed(), died()) == (1, 1)


def test_rows_sent_under_a_lost_lease_are_counted_and_a_lane_is_leased_meanwhile(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination())
    recorded_for(relay.db, an_aggregate())
    fenced, leased, during = grown("holdfast_outbox_fenced_total"), grown("holdfast_lanes_leased"), []

    def freeze(_: Row) -> Outcome:
        during.append(leased())
        time_passes(relay.db)
        assert claimed(relay.db) is not None
        return Delivered()

    relay.destinations[SHOP].answer = freeze  # type: ignore[attr-defined]
    relay.run()

    assert (fenced(), during, leased()) == (1, [1], 0)


def test_the_time_from_commit_to_delivery_is_the_databases(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination())
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
    relay = relay_to(FakeDestination())
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
