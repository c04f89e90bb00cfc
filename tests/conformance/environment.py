"""A relay that delivers to the server of a harness, and what must be true of both whatever has happened."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any
from uuid import UUID

from domain.outbox import Route
from tests.conformance.harness import Harness, aggregate_id, event_id
from tests.support.builders import Db, an_event, recorded, some_settings
from tests.support.outbox import SHOP, an_aggregate, relaying, rows, states, time_passes
from worker.destinations import open_sink
from worker.ordering.pace import Pace
from worker.relay.relay import Relay

#: How often time passes until everything must have been delivered.
PATIENCE = 20


@dataclass(frozen=True)
class Environment:
    harness: Harness
    relay: Relay
    aggregates: Sequence[UUID] = field(default_factory=lambda: [an_aggregate() for _ in range(3)])

    @property
    def db(self) -> Db:
        return self.relay.db

    def record(self, *, each: int = 3) -> Sequence[str]:
        """Record this many events of each aggregate, in turn. Return their ids in order."""
        events = [an_event(aggregate) for _ in range(each) for aggregate in self.aggregates]
        recorded(self.db, *events)
        return [str(row.event_id) for row in rows(self.db)[-len(events) :]]

    def record_elsewhere(self, count: int) -> None:
        """Record events of so many aggregates that have no other."""
        recorded(self.db, *(an_event(an_aggregate()) for _ in range(count)))

    def connect(self) -> None:
        """Deliver an event of each aggregate, so that connections are open when the trouble begins."""
        self.record(each=1)
        self._deliver_all()
        assert set(states(self.db)) == {"processed"}

    def endure(self, times: int = 3) -> None:
        """Try again and again during the trouble."""
        for _ in range(times):
            self.relay.run()
            time_passes(self.db)

    def recover(self) -> None:
        """End the trouble, and deliver until nothing is pending."""
        self.harness.recover()
        self._deliver_all()

    def _deliver_all(self) -> None:
        for _ in range(PATIENCE):
            self.relay.run()
            if set(states(self.db)) <= {"processed", "dead"}:
                break
            time_passes(self.db)

    def accepted_ids(self) -> list[str]:
        """Return the ids of the events that the server has accepted, in order, with repeats."""
        return [event_id(body) for body in self.harness.accepted()]

    def arrived_ids(self) -> list[str]:
        """Return the ids of the events that came in, whether the server accepted them or not."""
        return [event_id(body) for body in self.harness.arrived()]

    def check_that_nothing_is_lost(self, *, dead: Sequence[str] = ()) -> None:
        """Check that each event was taken in the order of its aggregate, apart from those that must be `dead`."""
        found = {str(row.event_id): row for row in rows(self.db)}
        assert set(states(self.db)) <= {"processed", "dead"}
        assert {event for event, row in found.items() if row.dead_at} == set(dead)
        assert set(self.accepted_ids()) == found.keys() - set(dead)
        for aggregate, first_receipts in self._first_receipts().items():
            of_it = [event for event, row in found.items() if str(row.aggregate_id) == aggregate and event not in dead]
            assert first_receipts == of_it

    def check_that_nothing_is_repeated(self) -> None:
        assert max(Counter(self.accepted_ids()).values()) == 1

    def check_that_no_attempt_is_spent(self) -> None:
        assert {row.attempts for row in rows(self.db)} == {0}

    def _first_receipts(self) -> dict[str, list[str]]:
        receipts: dict[str, dict[str, None]] = defaultdict(dict)
        for body in self.harness.accepted():
            receipts[aggregate_id(body)][event_id(body)] = None
        return {aggregate: list(events) for aggregate, events in receipts.items()}


@contextmanager
def an_environment(db: Db, harness: Harness, *, aggregates: Sequence[UUID] = (), **route: Any) -> Iterator[Environment]:
    """A relay to the server of this harness. `route` are options of its route."""
    options = {"timeout_seconds": harness.timeout_seconds} | route
    assert harness.url.startswith(f"{harness.scheme}:")
    sink = open_sink(Route(name=SHOP, url=harness.url, **options), some_settings(), Pace(Event()))
    with relaying(db, sink, **route) as relay:
        yield Environment(harness, relay, aggregates) if aggregates else Environment(harness, relay)
