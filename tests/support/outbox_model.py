"""What the outbox must store, on a page: the pure half of `test_outbox_model`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from domain.outbox import Delivered, Held, Outcome, Rejected, Row, Unreachable
from domain.outbox.table import lane_of
from tests.support.outbox import an_aggregate

#: Two aggregates share a lane, one has another.
AGGREGATES = [an_aggregate(0), an_aggregate(0), an_aggregate(1)]
LANES = {lane_of(aggregate) for aggregate in AGGREGATES}
MAX_ATTEMPTS = 2


@dataclass
class Promise:
    """What a row must look like. `is_due`: it waits, and its time has come. `down_at`: the step that found it so."""

    place: int
    state: str = "ready"
    attempts: int = 0
    is_due: bool = False
    down_at: int | None = None


@dataclass
class Model:
    """What must be stored: the promises by id, who holds which lane, and how the breaker stands."""

    promises: dict[int, Promise] = field(default_factory=dict)
    holders: dict[int, str | None] = field(default_factory=lambda: dict.fromkeys(LANES))
    leased: set[int] = field(default_factory=set)
    failures: int = 0
    is_open: bool = False
    recovered_at: int | None = None
    step: int = 0

    def in_lane(self, lane: int, *states: str) -> list[int]:
        """Return the ids of the promises in a lane that are in one of these states, in order."""
        of = self.promises
        return sorted(one for one in of if of[one].state in states and lane_of(AGGREGATES[of[one].place]) == lane)

    def due_in(self, lane: int) -> list[int]:
        return [one for one in self.in_lane(lane, "waiting") if self.promises[one].is_due]

    def claimable(self) -> set[int]:
        free = LANES - self.leased
        return set() if self.is_open else {one for one in free if self.in_lane(one, "ready") or self.due_in(one)}

    def head_of(self, row_id: int) -> Promise | None:
        """Return the first promise of the same aggregate that waits before this one."""
        before = [one for one in sorted(self.promises) if one < row_id]
        of = self.promises
        return next((of[o] for o in before if of[o].place == of[row_id].place and of[o].state == "waiting"), None)

    def settle(self, batch: Sequence["Sent"], *, probing: bool) -> None:
        is_up = any(isinstance(sent.outcome, Delivered | Rejected) for sent in batch)
        if probing and is_up:
            self.failures, self.is_open, self.recovered_at = 0, False, self.step
        is_down = [self._change(sent, batch[:number]) for number, sent in enumerate(batch)]
        if any(is_down):
            self.failures = self.failures + 1 if probing else max(self.failures, 1)
            self.is_open = True

    def _change(self, sent: "Sent", before: Sequence["Sent"]) -> bool:
        """Write down one outcome. Return whether it shows that the destination is down."""
        one = self.promises[sent.row.id]
        match sent.outcome:
            case Delivered():
                one.state = "processed"
            case Held():
                self._hold_back(one, sent, before)
            case Unreachable() if not self._is_own_fault(one):
                one.state, one.is_due, one.down_at = "waiting", False, self.step
                return True
            case outcome:
                one.attempts += 1
                is_dead = isinstance(outcome, Rejected) or one.attempts == MAX_ATTEMPTS
                one.state, one.is_due = "dead" if is_dead else "waiting", False
                one.down_at = self.step if isinstance(outcome, Unreachable) else one.down_at
        return False

    def _hold_back(self, one: Promise, sent: "Sent", before: Sequence["Sent"]) -> None:
        """It waits with what waits before it, in its batch or in the lane; behind what died it is ready."""
        ahead = [other for other in before if self.promises[other.row.id].place == one.place]
        ahead = [other for other in ahead if self.promises[other.row.id].state == "waiting"]
        if sent.head_is_due is not None:
            one.state, one.is_due = "waiting", sent.head_is_due
        elif ahead:
            one.state, one.is_due = "waiting", self.promises[ahead[-1].row.id].is_due

    def _is_own_fault(self, one: Promise) -> bool:
        return one.down_at is not None and self.recovered_at is not None and self.recovered_at > one.down_at


@dataclass
class Sent:
    """A row in a holder's hand. `head_is_due` is None where it waits for no other."""

    row: Row
    head_is_due: bool | None
    outcome: Outcome | None = None
