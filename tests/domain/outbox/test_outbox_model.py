"""The outbox, one step of one holder at a time, beside a model: holders of several lanes and stale ones interleave."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from uuid import uuid4

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Row as Record
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from domain import outbox
from domain.outbox import Delivered, Failed, NotSent, Lane, Outcome, Rejected, Unreachable
from domain.outbox.delivery.outcomes import Delivery, Retries
from domain.outbox.table import destinations, lanes, waiting
from domain.outbox.table import outbox as table
from tests.conftest import empty
from tests.support.builders import Db, an_event
from tests.support.models import MODEL
from tests.support.outbox import DOWN, NOT_NOW, SHOP, rows, with_shop
from tests.support.outbox_model import AGGREGATES, MAX_ATTEMPTS, Model, Promise, Sent

RETRIES = Retries(max_attempts=MAX_ATTEMPTS)

#: Further in the future than any run takes, and in the past.
LATER, BEFORE = func.now() + func.make_interval(0, 0, 0, 1), func.now() - func.make_interval(0, 0, 0, 1)

PLACES = range(len(AGGREGATES))
ANSWERS: list[Outcome] = [*[Delivered()] * 4, NOT_NOW, NOT_NOW, DOWN, Rejected("never")]

#: What can happen, as often as it is worth it.
ACTIONS = [
    *["record"] * 2,
    "commit_late",
    *["claim"] * 5,
    *["deliver"] * 5,
    *["settle"] * 5,
    *["expire_a_lease"] * 3,
    "renew",
    "release",
    *["time_passes"] * 2,
]


@dataclass
class Holder:
    """Someone who has claimed a lane, whether or not it is theirs still."""

    lane: Lane
    batch: list[Sent] = field(default_factory=list)
    after: int = 0


class Outbox(RuleBasedStateMachine):
    """What is stored is what the model says, after each step of anyone."""

    def __init__(self, db: Db) -> None:
        super().__init__()
        self.db = with_shop(db, max_attempts=MAX_ATTEMPTS)
        self.late: dict[int, Session] = {}

    @initialize()
    def begin(self) -> None:
        empty(self.db.kw["bind"])
        self.db = with_shop(self.db, max_attempts=MAX_ATTEMPTS)
        self.model = Model()
        self.horizon = outbox.CommitHorizon()
        self.holders: list[Holder] = []
        #: What the outside world got, in order, what it never takes, and what was settled as delivered.
        self.got: list[int] = []
        self.never: set[int] = set()
        self.kept: Counter[int] = Counter()

    @rule(actions=st.lists(st.sampled_from(ACTIONS), min_size=10, max_size=20), seed=st.integers(0, 2**32))
    def go_on(self, actions: list[str], seed: int) -> None:
        """All of it is one rule, as hypothesis leaves some out in each run."""
        dice = Random(seed)
        for action in actions:
            getattr(self, action)(dice)
            self._check_what_is_stored()

    def record(self, dice: Random) -> None:
        """One transaction may stay open, so that its ids commit after higher ones. It has the lock on its aggregate."""
        wanted, late = dice.choices(PLACES, k=dice.randint(1, 5)), dice.choice(PLACES)
        if dice.random() < 0.3 and late not in self.late:
            self.late[late] = self.db()
            outbox.record(self.late[late], [an_event(AGGREGATES[late])])
        with self.db.begin() as session:
            outbox.record(session, [an_event(AGGREGATES[place]) for place in wanted if place not in self.late])
        self._learn()

    def commit_late(self, _: Random) -> None:
        for session in self.late.values():
            session.commit()
            session.close()
        self.late.clear()
        self._learn()

    def _learn(self) -> None:
        """Take over what was recorded: its ids and nothing else."""
        for one in rows(self.db):
            self.model.promises.setdefault(one.id, Promise(AGGREGATES.index(one.aggregate_id)))

    def claim(self, dice: Random) -> None:
        """Claim a lane, wake what is due, and fetch: one transaction, as a worker does it."""
        claimable, model = self.model.claimable(), self.model
        with self.db.begin() as session:
            lane = outbox.claim(session, [SHOP], uuid4().hex, self.horizon)
            assert (lane.number in claimable) if lane else not claimable
            if lane is None:
                return
            assert lane.probing == (model.failures > 0)
            assert lane.rows_to_wake == bool(model.due_in(lane.number))
            model.is_open = lane.probing
            model.holders[lane.number] = lane.holder
            model.leased.add(lane.number)
            holder = Holder(lane, after=lane.settled_to)
            self._wake(session, holder)
            self._fetch(session, holder, dice.randint(1, 4))
            self._stop_the_clock(session)
        self.holders.append(holder)

    def _wake(self, session: Session, holder: Holder) -> None:
        due = self.model.due_in(holder.lane.number)
        assert outbox.wake(session, holder.lane) == len(due)
        if due:
            holder.lane, holder.after = replace(holder.lane, settled_to=0), 0
        for one in due:
            self.model.promises[one].state, self.model.promises[one].is_due = "ready", False

    def _fetch(self, session: Session, holder: Holder, limit: int) -> None:
        fetched = outbox.fetch(session, holder.lane, after=holder.after, limit=limit)
        ready = self.model.in_lane(holder.lane.number, "ready")
        wanted = [one for one in ready if holder.after < one <= holder.lane.newest]
        assert [row.id for row in fetched] == wanted[:limit]
        heads = [self.model.head_of(row.id) for row in fetched]
        assert [row.waits_until is not None for row in fetched] == [head is not None for head in heads]
        holder.batch = [Sent(row, head.is_due if head else None) for row, head in zip(fetched, heads, strict=True)]

    def deliver(self, dice: Random) -> None:
        """Send a batch, whether or not the lane is ours still."""
        unsent = [holder for holder in self.holders if any(sent.outcome is None for sent in holder.batch)]
        if unsent:
            self._deliver(dice.choice(unsent), lambda: dice.choice(ANSWERS))

    def _deliver(self, holder: Holder, answer: Callable[[], Outcome]) -> None:
        """Send in order, and nothing after what did not leave."""
        stopped: set[int] = set()
        for sent in holder.batch:
            place = self.model.promises[sent.row.id].place
            may_go = sent.head_is_due is None and place not in stopped
            sent.outcome = self._take(sent.row.id, answer()) if may_go else NotSent()
            if isinstance(sent.outcome, Failed | Unreachable | NotSent):
                stopped.add(place)

    def _take(self, row_id: int, answer: Outcome) -> Outcome:
        """Answer as the outside world does: what it has refused it never takes."""
        if row_id in self.never or isinstance(answer, Rejected):
            self.never.add(row_id)
            return Rejected("never")
        if isinstance(answer, Delivered):
            self.got.append(row_id)
        return answer

    def settle(self, dice: Random) -> None:
        """Settle what was sent, and fetch the next batch or give the lane back in the same transaction."""
        sent = [holder for holder in self.holders if holder.batch and holder.batch[-1].outcome]
        if sent:
            self._settle(dice.choice(sent), limit=dice.randint(1, 4), is_last=dice.random() < 0.3)

    def _settle(self, holder: Holder, *, limit: int, is_last: bool) -> None:
        deliveries: list[Delivery] = [(one.row, one.outcome) for one in holder.batch if one.outcome]
        before = [] if self._is_ours(holder) else rows(self.db)
        with self.db.begin() as session:
            settlement = outbox.settle(session, holder.lane, deliveries, retries=RETRIES, is_last=is_last)
            assert (settlement is not None) == self._is_ours(holder)
            if settlement is not None:
                self._settled(holder, settlement, is_last=is_last)
                if not is_last and not settlement.is_down:
                    self._fetch(session, holder, limit)
            self._stop_the_clock(session)
        if settlement is None:
            self.holders.remove(holder)
            assert rows(self.db) == before, "Who has lost the lane has written something."
        elif is_last:
            self.holders.remove(holder)
        elif settlement.is_down or not holder.batch:
            self._give_back(holder, probing=holder.lane.probing and not settlement.is_down)

    def _settled(self, holder: Holder, settlement: outbox.Settlement, *, is_last: bool) -> None:
        """Tell the model, and count what it says was kept."""
        model, lane, batch = self.model, holder.lane, holder.batch
        if is_last:
            self._is_given_back(lane, probing=lane.probing)
        else:
            model.leased.add(lane.number)
        model.settle(batch, probing=lane.probing)
        self.kept.update(row.id for row, _ in settlement.processed)
        ready = [sent.row.id for sent in batch if model.promises[sent.row.id].state == "ready"]
        assert settlement.read_on_after == (ready[0] - 1 if ready else batch[-1].row.id)
        holder.after, holder.batch = settlement.read_on_after, []
        holder.lane = replace(lane, probing=lane.probing and not settlement.is_up)

    def renew(self, dice: Random) -> None:
        if not self.holders:
            return
        holder = dice.choice(self.holders)
        with self.db.begin() as session:
            assert outbox.renew(session, [holder.lane]) == self._is_ours(holder)
            self._stop_the_clock(session)
        if self._is_ours(holder):
            self.model.leased.add(holder.lane.number)
            self.model.is_open = self.model.is_open or (holder.lane.probing and self.model.failures > 0)

    def release(self, dice: Random) -> None:
        if not self.holders:
            return
        holder = dice.choice(self.holders)
        self._give_back(holder, probing=holder.lane.probing)

    def _give_back(self, holder: Holder, *, probing: bool) -> None:
        is_ours = self._is_ours(holder)
        with self.db.begin() as session:
            lane = replace(holder.lane, probing=probing)
            given_back = outbox.release(session, lane, settled_to=holder.after)
            assert (given_back is not None) == is_ours
        self.holders.remove(holder)
        if is_ours:
            self._is_given_back(holder.lane, probing=probing)

    def _is_given_back(self, lane: Lane, *, probing: bool) -> None:
        self.model.holders[lane.number] = None
        self.model.leased.discard(lane.number)
        self.model.is_open = self.model.is_open and not probing

    def _is_ours(self, holder: Holder) -> bool:
        return self.model.holders[holder.lane.number] == holder.lane.holder

    def expire_a_lease(self, dice: Random) -> None:
        """Whoever holds it is frozen or dead, and someone else may claim it."""
        if not self.model.leased:
            return
        number = dice.choice(sorted(self.model.leased))
        with self.db.begin() as session:
            session.execute(update(lanes).where(lanes.c.lane == number).values(leased_until=BEFORE))
        self.model.leased.discard(number)

    def time_passes(self, _: Random) -> None:
        """All that waits is due, and the breaker lets someone probe. Leases are renewed meanwhile."""
        with self.db.begin() as session:
            session.execute(update(table).where(waiting).values(available_at=BEFORE))
            session.execute(update(destinations).values(open_until=BEFORE))
        self.model.is_open = False
        for one in self.model.promises.values():
            one.is_due = one.state == "waiting"

    def _stop_the_clock(self, session: Session) -> None:
        """A lease or a probe is over when the model says so, however slow this machine is."""
        clock = func.clock_timestamp()
        session.execute(update(lanes).where(lanes.c.leased_until > clock).values(leased_until=LATER))
        session.execute(update(destinations).where(destinations.c.open_until > clock).values(open_until=LATER))

    def _check_what_is_stored(self) -> None:
        """Nothing is lost, nothing is settled twice, and nothing is overtaken."""
        self.model.step += 1
        stored = {one.id: one for one in rows(self.db)}
        model = {row_id: (one.state, one.attempts) for row_id, one in self.model.promises.items()}
        assert {one.id: (_state(one), one.attempts) for one in stored.values()} == model
        for aggregate in AGGREGATES:
            first = [one for one in dict.fromkeys(self.got) if stored[one].aggregate_id == aggregate]
            first = [one for one in first if stored[one].dead_at is None]
            assert first == sorted(first)
        assert self.kept == {one.id: 1 for one in stored.values() if one.processed_at}, "Something was settled twice."
        assert set(self.kept) <= set(self.got), "Something is settled as delivered that never left."

    def teardown(self) -> None:
        """In the end, with nobody in the way, everything is delivered, or dead."""
        if not hasattr(self, "model"):
            return
        dice = Random(0)
        self.commit_late(dice)
        while any(one.state in ("ready", "waiting") for one in self.model.promises.values()):
            self.time_passes(dice)
            while self.model.leased:
                self.expire_a_lease(dice)
            self.claim(dice)
            holder = self.holders[-1]
            while holder in self.holders:
                self._deliver(holder, Delivered)
                self._settle(holder, limit=4, is_last=False)
            self._check_what_is_stored()


def _state(one: Record[Any]) -> str:
    if one.processed_at or one.dead_at:
        return "processed" if one.processed_at else "dead"
    return "waiting" if one.available_at else "ready"


def test_every_step_of_every_holder_leaves_what_the_model_says(db: Db) -> None:
    class Here(Outbox):
        def __init__(self) -> None:
            super().__init__(db)

    run_state_machine_as_test(Here, settings=settings(MODEL, max_examples=20, stateful_step_count=5))
