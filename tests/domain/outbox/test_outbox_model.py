"""The outbox beside a model, one step of one worker at a time: runs over several lanes interleave, also stale ones."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from domain import outbox
from domain.outbox import Call, Delivered, Delivery, InFlight, LeasedLane, NotSent, Outcome, Rejected
from domain.outbox.delivery.lanes import LEASE
from domain.outbox.delivery.outcomes import LONGEST_RETRY_AFTER
from domain.outbox.table import destinations, lanes, waiting
from domain.outbox.table import outbox as table
from tests.conftest import empty
from tests.domain.outbox.outbox_model import AGGREGATES, MAX_ATTEMPTS, Model, ModelRow, Sent
from tests.support.builders import Db, an_event, routes_of
from tests.support.hypothesis_settings import MODEL
from tests.support.outbox import DOWN, NOT_NOW, SHOP, a_retry_policy, rows, states, with_shop

RETRY_POLICY = a_retry_policy(MAX_ATTEMPTS)

#: An hour from now, which is longer than the test takes and no longer than a breaker can be open, and a day ago.
LATER, BEFORE = func.now() + LONGEST_RETRY_AFTER, func.now() - func.make_interval(0, 0, 0, 1)

PLACES = range(len(AGGREGATES))
ANSWERS: list[Outcome] = [*[Delivered()] * 4, NOT_NOW, NOT_NOW, DOWN, Rejected("never")]
IN_FLIGHT = InFlight(timedelta(hours=1), Future())

#: What can happen. What is repeated here happens more often.
ACTIONS = [
    *["record"] * 2,
    "commit_late",
    *["claim"] * 5,
    *["deliver"] * 5,
    *["settle"] * 5,
    *["end_a_call"] * 2,
    *["expire_a_lease"] * 3,
    "renew",
    "release",
    *["time_passes"] * 2,
]


@dataclass
class Run:
    """A run over a lane that was claimed. The lease may have been lost since."""

    lane: LeasedLane
    batch: list[Sent] = field(default_factory=list)
    after: int = 0


class Outbox(RuleBasedStateMachine):
    """After each step of any run, the database stores what the model says."""

    def __init__(self, db: Db) -> None:
        super().__init__()
        self.db = with_shop(db, max_attempts=MAX_ATTEMPTS)
        self.late: dict[int, Session] = {}

    @initialize()
    def begin(self) -> None:
        empty(self.db.kw["bind"])
        self.db = with_shop(self.db, max_attempts=MAX_ATTEMPTS)
        self.model = Model()
        self.commit_horizon = outbox.CommitHorizon()
        self.history = outbox.History()
        self.runs: list[Run] = []
        #: The calls that have outlasted their batch, each with the wait of its row.
        self.calls: list[tuple[Call, object]] = []
        #: The rows that the destination received, in order.
        self.received: list[int] = []
        #: The rows that the destination has rejected once and will always reject.
        self.rejected: set[int] = set()
        #: How often each row was settled as delivered.
        self.settled: Counter[int] = Counter()

    @rule(actions=st.lists(st.sampled_from(ACTIONS), min_size=10, max_size=20), seed=st.integers(0, 2**32))
    def act(self, actions: list[str], seed: int) -> None:
        """All actions are in one rule, because hypothesis disables some rules in each run."""
        dice = Random(seed)
        for action in actions:
            getattr(self, action)(dice)
            self._check_what_is_stored()

    def record(self, dice: Random) -> None:
        """Record events. A transaction may stay open, with its aggregate locked: its ids commit after higher ones."""
        wanted, late = dice.choices(PLACES, k=dice.randint(1, 5)), dice.choice(PLACES)
        if dice.random() < 0.3 and late not in self.late:
            self.late[late] = self.db()
            outbox.record(self.late[late], [an_event(AGGREGATES[late])], routes_of(self.db))
        with self.db.begin() as session:
            events = [an_event(AGGREGATES[place]) for place in wanted if place not in self.late]
            outbox.record(session, events, routes_of(self.db))
        self._add_to_model()

    def commit_late(self, _: Random) -> None:
        for session in self.late.values():
            session.commit()
            session.close()
        self.late.clear()
        self._add_to_model()

    def _add_to_model(self) -> None:
        """Add new rows to the model, by their ids and aggregates."""
        for one in rows(self.db):
            self.model.rows.setdefault(one.id, ModelRow(AGGREGATES.index(one.aggregate_id)))

    def claim(self, dice: Random) -> None:
        """Claim a lane, make its due rows ready and fetch, in one transaction as a worker does it."""
        claimable, model = self.model.claimable(), self.model
        self._prolong_leases()
        with self.db.begin() as session:
            lane = outbox.claim(session, [SHOP], uuid4().hex, self.commit_horizon)
            assert (lane.number in claimable) if lane else not claimable
            if lane is None:
                return
            assert lane.probing == (model.failures > 0)
            assert lane.has_due_rows == bool(model.due_in(lane.number))
            model.is_open = lane.probing
            model.holders[lane.number] = lane.holder
            model.leased.add(lane.number)
            run = Run(lane, after=lane.low_watermark)
            self._make_due_rows_ready(session, run)
            self._fetch(session, run, dice.randint(1, 4))
            self._stop_the_clock(session)
        self.runs.append(run)

    def _make_due_rows_ready(self, session: Session, run: Run) -> None:
        due = self.model.due_in(run.lane.number)
        assert outbox.make_due_rows_ready(session, run.lane) == len(due)
        if due:
            run.lane, run.after = replace(run.lane, low_watermark=0), 0
        for one in due:
            self.model.rows[one].state, self.model.rows[one].is_due = "ready", False

    def _fetch(self, session: Session, run: Run, limit: int) -> None:
        fetched = outbox.fetch(session, run.lane, after=run.after, limit=limit)
        ready = self.model.in_lane(run.lane.number, "ready")
        wanted = [one for one in ready if run.after < one <= run.lane.newest]
        assert [row.id for row in fetched] == wanted[:limit]
        heads = [self.model.head_of(row.id) for row in fetched]
        assert [row.waits_until is not None for row in fetched] == [head is not None for head in heads]
        run.batch = [Sent(row, head) for row, head in zip(fetched, heads, strict=True)]

    def deliver(self, dice: Random) -> None:
        """Send the batch of a run, whether or not its lease was lost."""
        unsent = [run for run in self.runs if any(sent.outcome is None for sent in run.batch)]
        if unsent:
            self._deliver(dice.choice(unsent), lambda: dice.choice([*ANSWERS, IN_FLIGHT]))

    def _deliver(self, run: Run, answer: Callable[[], Outcome]) -> None:
        """Send rows in order, and no row behind an undelivered one of its aggregate."""
        stopped: set[int] = set()
        for sent in run.batch:
            place = self.model.rows[sent.row.id].place
            may_be_sent = sent.head is None and place not in stopped
            sent.outcome = self._receive(sent.row.id, answer()) if may_be_sent else NotSent()
            if not isinstance(sent.outcome, Delivered):
                stopped.add(place)

    def _receive(self, row_id: int, answer: Outcome) -> Outcome:
        """Answer as a destination does: a row that it has rejected it always rejects."""
        if row_id in self.rejected or isinstance(answer, Rejected):
            self.rejected.add(row_id)
            return Rejected("never")
        if isinstance(answer, Delivered):
            self.received.append(row_id)
        return answer

    def settle(self, dice: Random) -> None:
        """Settle a batch that was sent, and fetch the next one or release the lane in the same transaction."""
        sent = [run for run in self.runs if run.batch and run.batch[-1].outcome]
        if sent:
            self._settle(dice.choice(sent), limit=dice.randint(1, 4), is_last=dice.random() < 0.3)

    def _settle(self, run: Run, *, limit: int, is_last: bool) -> None:
        deliveries: list[Delivery] = [(one.row, one.outcome) for one in run.batch if one.outcome]
        before = [] if self._has_lease(run) else rows(self.db)
        with self.db.begin() as session:
            settlement = outbox.settle(
                session, [run.lane], deliveries, retry_policy=RETRY_POLICY, history=self.history, is_last=is_last
            )
            assert (settlement is not None) == self._has_lease(run)
            if settlement is not None:
                self._apply(run, settlement, is_last=is_last)
                if not is_last and not settlement.down:
                    self._fetch(session, run, limit)
            self._stop_the_clock(session)
        if settlement is None:
            self.runs.remove(run)
            assert rows(self.db) == before, "A run that has lost its lease has written something."
        elif is_last:
            self.runs.remove(run)
        elif settlement.down or not run.batch:
            self._release(run, probing=run.lane.probing and not settlement.down)

    def _apply(self, run: Run, settlement: outbox.Settlement, *, is_last: bool) -> None:
        """Apply a settlement to the model, and count the rows that it has settled as delivered."""
        model, lane, batch = self.model, run.lane, run.batch
        if is_last:
            self._apply_release(lane, probing=lane.probing)
        else:
            model.leased.add(lane.number)
        model.settle(batch, probing=lane.probing)
        self.settled.update(row.id for row, _ in settlement.processed)
        ready = [sent.row.id for sent in batch if model.rows[sent.row.id].state == "ready"]
        assert settlement.read_on_after == (ready[0] - 1 if ready else batch[-1].row.id)
        self._expect_calls(settlement, batch)
        run.after, run.batch = settlement.read_on_after, []
        run.lane = replace(lane, probing=lane.probing and not settlement.is_up)

    def _expect_calls(self, settlement: outbox.Settlement, batch: Sequence[Sent]) -> None:
        for sent in batch:
            if isinstance(sent.outcome, InFlight):
                since = settlement.at
                call = Call(destination=SHOP, row=sent.row, since=since, until=since + sent.outcome.within)
                self.calls.append((call, self.model.rows[sent.row.id].wait))

    def end_a_call(self, dice: Random) -> None:
        """End a call that has outlasted its batch. Its row may have been sent again meanwhile."""
        if not self.calls:
            return
        call, wait = self.calls.pop(dice.randrange(len(self.calls)))
        row, outcome = self.model.rows[call.row.id], self._receive(call.row.id, dice.choice(ANSWERS))
        is_ours = row.state == "waiting" and row.wait is wait
        with self.db.begin() as session:
            settlement = outbox.settle_late(session, call, outcome, retry_policy=RETRY_POLICY, history=self.history)
            assert (settlement is not None) == is_ours
            self._stop_the_clock(session)
        if settlement:
            self.model.settle_late(Sent(call.row, None, outcome))
            self.settled.update(row.id for row, _ in settlement.processed)

    def renew(self, dice: Random) -> None:
        if not self.runs:
            return
        run = dice.choice(self.runs)
        with self.db.begin() as session:
            assert bool(outbox.renew(session, [run.lane])) == self._has_lease(run)
            self._stop_the_clock(session)
        if self._has_lease(run):
            self.model.leased.add(run.lane.number)
            self.model.is_open = self.model.is_open or (run.lane.probing and self.model.failures > 0)

    def release(self, dice: Random) -> None:
        if not self.runs:
            return
        run = dice.choice(self.runs)
        self._release(run, probing=run.lane.probing)

    def _release(self, run: Run, *, probing: bool) -> None:
        has_lease = self._has_lease(run)
        with self.db.begin() as session:
            lane = replace(run.lane, probing=probing)
            released = outbox.release(session, lane, settled_up_to=run.after)
            assert (released is not None) == has_lease
        self.runs.remove(run)
        if has_lease:
            self._apply_release(run.lane, probing=probing)

    def _apply_release(self, lane: LeasedLane, *, probing: bool) -> None:
        self.model.holders[lane.number] = None
        self.model.leased.discard(lane.number)
        self.model.is_open = self.model.is_open and not probing

    def _has_lease(self, run: Run) -> bool:
        """Return whether no other run has claimed the lane since."""
        return self.model.holders[run.lane.number] == run.lane.holder

    def expire_a_lease(self, dice: Random) -> None:
        """End the lease of a lane whose worker is frozen or dead, so that another one may claim the lane."""
        if not self.model.leased:
            return
        number = dice.choice(sorted(self.model.leased))
        with self.db.begin() as session:
            session.execute(update(lanes).where(lanes.c.lane == number).values(leased_until=BEFORE))
        self.model.leased.discard(number)

    def time_passes(self, _: Random) -> None:
        """Make all waiting rows due, and the next probe as well. Leases are renewed meanwhile."""
        with self.db.begin() as session:
            session.execute(update(table).where(waiting).values(available_at=BEFORE))
            session.execute(update(destinations).values(open_until=BEFORE))
        self.model.is_open = False
        for one in self.model.rows.values():
            if one.state == "waiting":
                one.wait_alone(is_due=True)

    def _prolong_leases(self) -> None:
        """Let leases end only when the model says so, however slow this machine is."""
        clock = func.clock_timestamp()
        leased = update(lanes).where(lanes.c.lane.in_(self.model.leased))
        old = leased.where(lanes.c.leased_until < clock + LEASE - timedelta(seconds=1))
        with self.db.begin() as session:
            session.execute(old.values(leased_until=clock + LEASE))

    def _stop_the_clock(self, session: Session) -> None:
        """Let probes end only when the model says so."""
        clock = func.clock_timestamp()
        session.execute(update(destinations).where(destinations.c.open_until > clock).values(open_until=LATER))

    def _check_what_is_stored(self) -> None:
        """No row is lost, settled twice or overtaken."""
        stored = {one.id: one for one in rows(self.db)}
        model = {row_id: (one.state, one.attempts) for row_id, one in self.model.rows.items()}
        found = zip(stored.values(), states(self.db), strict=True)
        assert {one.id: (state, one.attempts) for one, state in found} == model
        for aggregate in AGGREGATES:
            first_time = [one for one in dict.fromkeys(self.received) if stored[one].aggregate_id == aggregate]
            first_time = [one for one in first_time if stored[one].dead_at is None]
            assert first_time == sorted(first_time)
        assert self.settled == {one.id: 1 for one in stored.values() if one.processed_at}, "A row was settled twice."
        assert set(self.settled) <= set(self.received), "A row was settled as delivered and never received."

    def teardown(self) -> None:
        """In the end, when each run keeps its lease, every row is delivered or dead."""
        if not hasattr(self, "model"):
            return
        dice = Random(0)
        self.commit_late(dice)
        self.rejected.clear()
        while any(one.state in ("ready", "waiting") for one in self.model.rows.values()):
            self.time_passes(dice)
            while self.model.leased:
                self.expire_a_lease(dice)
            self.claim(dice)
            run = self.runs[-1]
            while run in self.runs:
                self._deliver(run, Delivered)
                self._settle(run, limit=4, is_last=False)
            self._check_what_is_stored()


@pytest.mark.slow
def test_after_every_step_of_every_run_the_outbox_stores_what_the_model_says(db: Db) -> None:
    class Here(Outbox):
        def __init__(self) -> None:
            super().__init__(db)

    run_state_machine_as_test(Here, settings=settings(MODEL, max_examples=20, stateful_step_count=5))
