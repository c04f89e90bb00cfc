"""Isolation: the effects of a step commit with the row that caused them, and a poisonous effect fails alone."""

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from domain import invariants
from domain.outbox import Settlement
from domain.outbox.table import destinations
from tests.conftest import OpenRelay
from tests.support.builders import Db
from tests.support.outbox import (
    SHOP,
    FakeDestination,
    an_aggregate,
    destination,
    recorded_for,
    row,
    states,
    time_passes,
)
from worker.relay.tally import Tally


class Step(FakeDestination):
    """A server whose answers have effects on the database. The effects of poisonous rows raise an error."""

    def __init__(self, *, concurrency: int = 1) -> None:
        super().__init__(concurrency=concurrency)
        self.poisonous: set[int] = set()
        self.uncompensated: set[int] = set()
        self.applied: list[int] = []

    def apply(self, session: Session, settlement: Settlement) -> None:
        done = [row.id for row, _ in settlement.processed]
        if self.poisonous & set(done):
            raise ValueError("poison")
        if self.uncompensated & {dead.row.id for dead in settlement.dead}:
            raise ValueError("no compensation")
        session.execute(update(destinations).where(destinations.c.name == SHOP).values(reason=str(done)))
        self.applied += done


def is_in_order(db: Db) -> bool:
    """Return whether `bin/doctor` finds no event that was overtaken."""
    with db.begin() as session:
        findings = invariants.examine(session)
    return not any(finding.violations for finding in findings if "before an earlier event" in finding.title)


def test_an_effect_commits_with_the_row_that_caused_it(relay_to: OpenRelay) -> None:
    shop = Step()
    relay = relay_to(shop)
    ids = recorded_for(relay.db, an_aggregate())

    relay.run()

    assert shop.applied == ids
    assert destination(relay.db).reason == str(ids)


def test_a_poisonous_effect_fails_alone(relay_to: OpenRelay) -> None:
    shop = Step()
    relay = relay_to(shop)
    first, bad, last = recorded_for(relay.db, *(an_aggregate() for _ in range(3)))
    shop.poisonous = {bad}

    tally = relay.run(limit=3)

    assert tally == Tally(tried=3, processed=2, waiting=1)
    assert shop.applied == [first, last]
    assert states(relay.db) == ["processed", "waiting", "processed"]
    assert row(relay.db, bad).last_error == "ValueError: poison"
    assert row(relay.db, bad).attempts == 1


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_a_poisonous_effect_is_not_overtaken_by_later_events_of_its_reservation(
    relay_to: OpenRelay, batch_size: int
) -> None:
    shop = Step()
    relay = relay_to(shop, batch_size=batch_size)
    aggregate = an_aggregate()
    bad, second, third = recorded_for(relay.db, *[aggregate] * 3)
    shop.poisonous = {bad}

    relay.run()

    assert "processed" not in states(relay.db)
    assert is_in_order(relay.db)
    shop.poisonous.clear()
    time_passes(relay.db)
    relay.run()
    assert shop.applied == [bad, second, third]


def test_a_poisonous_effect_is_dead_after_its_last_attempt_and_its_aggregate_continues(relay_to: OpenRelay) -> None:
    shop = Step()
    relay = relay_to(shop, max_attempts=2)
    aggregate = an_aggregate()
    bad, second = recorded_for(relay.db, aggregate, aggregate)
    shop.poisonous = {bad}

    for _ in range(3):
        relay.run()
        time_passes(relay.db)

    assert states(relay.db) == ["dead", "processed"]
    assert shop.applied == [second]


def test_a_compensation_that_breaks_as_well_does_not_stop_its_lane(relay_to: OpenRelay) -> None:
    shop = Step()
    relay = relay_to(shop, max_attempts=1)
    aggregate = an_aggregate()
    bad, second = recorded_for(relay.db, aggregate, aggregate)
    shop.poisonous = shop.uncompensated = {bad}

    relay.run()
    relay.run()

    assert states(relay.db) == ["dead", "processed"]
    assert row(relay.db, bad).last_error == "ValueError: poison"
    assert shop.applied == [second]
