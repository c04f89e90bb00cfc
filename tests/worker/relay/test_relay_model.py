"""The relay beside a model: in order, nothing lost, and twice only the rows that were in flight under a lost lease."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.orm import Session

from domain import invariants, outbox
from domain.outbox import Delivered, Failed, Outcome, Rejected, Row, Unreachable
from tests.conftest import empty
from tests.support.builders import Db, an_event, routes_of
from tests.support.hypothesis_settings import MODEL
from tests.support.outbox import SHOP, FakeDestination, a_relay, an_aggregate, rows, time_passes, with_shop
from worker.relay.relay import Relay
from worker.relay.tally import Tally

#: Two aggregates share a lane, one has another.
AGGREGATES = [an_aggregate(0), an_aggregate(0), an_aggregate(1)]
MAX_ATTEMPTS = 2

PLACES = range(len(AGGREGATES))
places = st.sampled_from(PLACES)
ANSWERS: list[Outcome] = [*[Delivered()] * 5, Failed("e"), Failed("e"), Unreachable("e"), Rejected("e")]
#: What happens elsewhere during a call.
MEANWHILE = [*["nothing"] * 4, "freeze", "record", "begin", "commit"]


@dataclass
class Server:
    """A receiver: which rows it got, in order, and which it never accepts."""

    got: list[int] = field(default_factory=list)
    never: set[int] = field(default_factory=set)

    def take(self, row: Row, answer: Outcome) -> Outcome:
        if row.id in self.never:
            return Rejected("never")
        if isinstance(answer, Delivered):
            self.got.append(row.id)
        if isinstance(answer, Rejected):
            self.never.add(row.id)
        return answer


class Draining(RuleBasedStateMachine):
    """Events are recorded, delivered and rejected; leases are lost; transactions commit late."""

    def __init__(self, db: Db) -> None:
        super().__init__()
        self.db = with_shop(db, max_attempts=MAX_ATTEMPTS)
        self.open = ExitStack()
        self.late: dict[int, Session] = {}
        self.recorded = 0
        self.server = Server()
        #: How many repeats of each row are allowed: one for each lost lease under which it was in flight.
        self.allowed: Counter[int] = Counter()

    @initialize(batch_size=st.integers(1, 3))
    def begin(self, batch_size: int) -> None:
        empty(self.db.kw["bind"])
        self.db = with_shop(self.db, max_attempts=MAX_ATTEMPTS, batch_size=batch_size)
        self.worker, self.other = FakeDestination(), FakeDestination(lambda row: self.server.take(row, Delivered()))
        self.relay, self.other_relay = (self._a_relay(shop) for shop in (self.worker, self.other))

    def _a_relay(self, shop: FakeDestination) -> Relay:
        (route,) = routes_of(self.db).sinks
        relay = a_relay(self.db, {SHOP: route}, {SHOP: shop})
        self.open.callback(relay.close, grace_seconds=0)
        return relay

    def record(self, wanted: list[int]) -> None:
        """Record in a transaction. Recording locks the aggregate, so no other transaction records for it meanwhile."""
        with self.db.begin() as session:
            self._record(session, [place for place in wanted if place not in self.late])

    def _record(self, session: Session, wanted: list[int]) -> None:
        self.recorded += outbox.record(session, [an_event(AGGREGATES[place]) for place in wanted], routes_of(self.db))

    def begin_late(self, place: int) -> None:
        """Record in a transaction that stays open, so that its ids commit after higher ones."""
        if place not in self.late:
            self.late[place] = self.db()
            self._record(self.late[place], [place])

    @rule()
    def commit_late(self) -> None:
        for session in self.late.values():
            session.commit()
            session.close()
        self.late.clear()

    @rule(
        wanted=st.lists(places, max_size=6),
        late=st.none() | places,
        dice=st.integers(0, 2**32).map(Random),
        limit=st.sampled_from([float("inf"), 3]),
    )
    def work(self, wanted: list[int], late: int | None, dice: Random, limit: float) -> None:
        """Record, perhaps in a transaction that stays open, and drain: one rule, as hypothesis leaves some out."""
        self.record(wanted)
        if late is not None:
            self.begin_late(late)
        called: list[int] = []

        def answer(row: Row) -> Outcome:
            called.append(row.id)
            outcome = self.server.take(row, dice.choice(ANSWERS))
            self._meanwhile(dice.choice(MEANWHILE), dice.choice(PLACES))
            return outcome

        self.worker.answer = answer
        tally = self.relay.run(limit=limit)
        if tally.fenced:
            self.allowed.update(set(called))

    def _meanwhile(self, happening: str, place: int) -> None:
        if happening == "freeze":
            self.time_passes()
            self.other_relay.run()
        elif happening == "record":
            self.record([place])
        elif happening == "begin":
            self.begin_late(place)
        elif happening == "commit":
            late = list(self.late)
            self.commit_late()
            self.record(late)

    @rule()
    def time_passes(self) -> None:
        time_passes(self.db)

    @invariant()
    def nothing_is_lost_repeated_or_overtaken(self) -> None:
        stored = rows(self.db)
        got = self.server.got
        assert all(count <= 1 + self.allowed[row_id] for row_id, count in Counter(got).items())
        for aggregate in AGGREGATES:
            first = list(
                dict.fromkeys(
                    row.id for row_id in got for row in stored if row.id == row_id and row.aggregate_id == aggregate
                )
            )
            assert first == sorted(first)
        for row in stored:
            assert (row.id in got) >= (row.processed_at is not None)
            assert (row.id in self.server.never or row.attempts >= MAX_ATTEMPTS) >= (row.dead_at is not None)
        with self.db.begin() as session:
            broken = [finding for finding in invariants.examine(session) if finding.violations]
        assert broken == []

    def teardown(self) -> None:
        """In the end every row is delivered, or dead for a reason."""
        try:
            if hasattr(self, "relay"):
                self._end()
        finally:
            self.open.close()

    def _end(self) -> None:
        self.commit_late()
        self.worker.answer = lambda row: self.server.take(row, Delivered())
        self.time_passes()
        while self.relay.run() != Tally():
            self.time_passes()
        self.nothing_is_lost_repeated_or_overtaken()
        stored = rows(self.db)
        assert len(stored) == self.recorded
        assert all(row.processed_at or row.dead_at for row in stored)


@pytest.mark.slow
def test_whatever_happens_events_are_delivered_in_order(db: Db) -> None:
    class Here(Draining):
        def __init__(self) -> None:
            super().__init__(db)

    run_state_machine_as_test(Here, settings=MODEL)
