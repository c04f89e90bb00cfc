"""A drain that delivers to a world, and what must be true of the two whatever has happened."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any
from uuid import UUID

from domain.outbox.routes import Route
from tests.conformance.harness import World, aggregate_id, event_id
from tests.support.builders import Db, an_event, recorded, some_settings
from tests.support.outbox import SHOP, an_aggregate, draining, rows, standing, time_passes
from worker.destinations import open_destination
from worker.relay.relay import Drain

#: How often time passes until all must have been delivered.
PATIENCE = 20


@dataclass(frozen=True)
class Scene:
    world: World
    drain: Drain
    aggregates: Sequence[UUID] = field(default_factory=lambda: [an_aggregate() for _ in range(3)])

    @property
    def db(self) -> Db:
        return self.drain.db

    def records(self, *, each: int = 3) -> Sequence[str]:
        """Record so many events of each aggregate, in turn. Return their ids in order."""
        events = [an_event(aggregate) for _ in range(each) for aggregate in self.aggregates]
        recorded(self.db, *events)
        return [str(row.event_id) for row in rows(self.db)[-len(events) :]]

    def opens(self) -> None:
        """Deliver an event of each aggregate, so that connections are open when trouble comes."""
        self.records(each=1)
        self.drain.run()
        assert set(standing(self.db)) == {"processed"}

    def endures(self, times: int = 3) -> None:
        """Try again and again while there is trouble."""
        for _ in range(times):
            self.drain.run()
            time_passes(self.db)

    def recovers(self) -> None:
        """Let trouble end, and deliver until nothing is left to deliver."""
        self.world.recovers()
        for _ in range(PATIENCE):
            if set(standing(self.db)) <= {"processed", "dead"}:
                break
            time_passes(self.db)
            self.drain.run()

    def taken(self) -> list[str]:
        """Return the ids of the events that the world has taken, in order, with repeats."""
        return [event_id(body) for body in self.world.accepted()]

    def came_in(self) -> list[str]:
        return [event_id(body) for body in self.world.arrived()]

    def is_conserved(self, *, dead: Sequence[str] = ()) -> None:
        """Insist that each event was taken, or is one of those that may be dead, in the order of its aggregate."""
        found = {str(row.event_id): row for row in rows(self.db)}
        assert set(standing(self.db)) <= {"processed", "dead"}
        assert {event for event, row in found.items() if row.dead_at} == set(dead)
        assert set(self.taken()) == found.keys() - set(dead)
        for aggregate, first_receipts in self._first_receipts().items():
            of_it = [event for event, row in found.items() if str(row.aggregate_id) == aggregate and event not in dead]
            assert first_receipts == of_it

    def is_taken_once(self) -> None:
        """Insist that nothing was taken twice."""
        assert max(Counter(self.taken()).values()) == 1

    def has_spent_nothing(self) -> None:
        """Insist that no row was charged an attempt."""
        assert {row.attempts for row in rows(self.db)} == {0}

    def _first_receipts(self) -> dict[str, list[str]]:
        receipts: dict[str, dict[str, None]] = defaultdict(dict)
        for body in self.world.accepted():
            receipts[aggregate_id(body)][event_id(body)] = None
        return {aggregate: list(events) for aggregate, events in receipts.items()}


@contextmanager
def a_scene(db: Db, world: World, *, aggregates: Sequence[UUID] = (), **route: Any) -> Iterator[Scene]:
    """A drain of this world. `route` are options of its route."""
    options = {"timeout_seconds": world.timeout_seconds} | route
    destination = open_destination(Route(name=SHOP, url=world.url, **options), some_settings(), db, Event())
    with draining(db, destination, **route) as drain:
        yield Scene(world, drain, aggregates) if aggregates else Scene(world, drain)
