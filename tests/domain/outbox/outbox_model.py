"""A model of what the outbox must store, without a database. `test_outbox_model` compares the outbox with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from domain.outbox import Delivered, NotSent, Outcome, Rejected, Row, Unreachable
from domain.outbox.table import lane_of
from tests.support.outbox import an_aggregate

#: Two aggregates share a lane, one has another.
AGGREGATES = [an_aggregate(0), an_aggregate(0), an_aggregate(1)]
LANES = {lane_of(aggregate) for aggregate in AGGREGATES}
MAX_ATTEMPTS = 2


@dataclass
class ModelRow:
    """What a row must look like.

    `place` is that of its aggregate in AGGREGATES. With `is_due` the row waits and its time has come. `down_at` is
    the step in which the row last found its destination down.
    """

    place: int
    state: str = "ready"
    attempts: int = 0
    is_due: bool = False
    down_at: int | None = None


@dataclass
class Model:
    """What must be stored: the rows by id, the holder of each lane, and the state of the breaker."""

    rows: dict[int, ModelRow] = field(default_factory=dict)
    holders: dict[int, str | None] = field(default_factory=lambda: dict.fromkeys(LANES))
    leased: set[int] = field(default_factory=set)
    failures: int = 0
    is_open: bool = False
    recovered_at: int | None = None
    step: int = 0

    def in_lane(self, lane: int, *states: str) -> list[int]:
        """Return the ids of the rows of a lane that are in one of these states, in order."""
        rows = self.rows
        return sorted(one for one in rows if rows[one].state in states and lane_of(AGGREGATES[rows[one].place]) == lane)

    def due_in(self, lane: int) -> list[int]:
        return [one for one in self.in_lane(lane, "waiting") if self.rows[one].is_due]

    def claimable(self) -> set[int]:
        free = LANES - self.leased
        return set() if self.is_open else {one for one in free if self.in_lane(one, "ready") or self.due_in(one)}

    def head_of(self, row_id: int) -> ModelRow | None:
        """Return the first row of the same aggregate that waits before this one."""
        place = self.rows[row_id].place
        before = (self.rows[one] for one in sorted(self.rows) if one < row_id)
        return next((row for row in before if row.place == place and row.state == "waiting"), None)

    def settle(self, batch: Sequence["Sent"], *, probing: bool) -> None:
        is_up = any(isinstance(sent.outcome, Delivered | Rejected) for sent in batch)
        if probing and is_up:
            self.failures, self.is_open, self.recovered_at = 0, False, self.step
        is_down = [self._settle(sent, batch[:number]) for number, sent in enumerate(batch)]
        if any(is_down):
            self.failures = self.failures + 1 if probing else max(self.failures, 1)
            self.is_open = True

    def _settle(self, sent: "Sent", before: Sequence["Sent"]) -> bool:
        """Apply one outcome. Return whether it shows that the destination is down."""
        row = self.rows[sent.row.id]
        match sent.outcome:
            case Delivered():
                row.state = "processed"
            case NotSent():
                self._keep_behind(row, sent, before)
            case Unreachable() if not self._is_own_fault(row):
                row.state, row.is_due, row.down_at = "waiting", False, self.step
                return True
            case outcome:
                row.attempts += 1
                is_dead = isinstance(outcome, Rejected) or row.attempts == MAX_ATTEMPTS
                row.state, row.is_due = "dead" if is_dead else "waiting", False
                row.down_at = self.step if isinstance(outcome, Unreachable) else row.down_at
        return False

    def _keep_behind(self, row: ModelRow, sent: "Sent", before: Sequence["Sent"]) -> None:
        """Make a row that was not sent wait with the waiting row before it. Behind a dead row it stays ready."""
        ahead = [self.rows[other.row.id] for other in before if self.rows[other.row.id].place == row.place]
        ahead = [other for other in ahead if other.state == "waiting"]
        if sent.head_is_due is not None:
            row.state, row.is_due = "waiting", sent.head_is_due
        elif ahead:
            row.state, row.is_due = "waiting", ahead[-1].is_due

    def _is_own_fault(self, row: ModelRow) -> bool:
        return row.down_at is not None and self.recovered_at is not None and self.recovered_at > row.down_at


@dataclass
class Sent:
    """A fetched row and its outcome. `head_is_due` is None if no earlier row of its aggregate waits."""

    row: Row
    head_is_due: bool | None
    outcome: Outcome | None = None
