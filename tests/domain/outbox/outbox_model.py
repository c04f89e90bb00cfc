"""A model of what the outbox must store, without a database. `test_outbox_model` compares the outbox with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from domain.outbox import REFUSED_IN_A_ROW, Delivered, Failed, InFlight, NotSent, Outcome, Rejected, Row, Unreachable
from domain.outbox.delivery.history import TAKEN_FOR_EACH_REFUSED
from domain.outbox.table import lane_of
from tests.support.outbox import an_aggregate

#: Two aggregates share a lane, one has another.
AGGREGATES = [an_aggregate(0), an_aggregate(0), an_aggregate(1)]
LANES = {lane_of(aggregate) for aggregate in AGGREGATES}
MAX_ATTEMPTS = 2


@dataclass
class ModelRow:
    """What a row must look like.

    `place` is that of its aggregate in AGGREGATES. With `is_due` the row waits and its time has come. Rows that wait
    until the same time have the same `wait`. `refused_at` is the number of the last answer by which it was refused.
    """

    place: int
    state: str = "ready"
    attempts: int = 0
    is_due: bool = False
    refused_at: int | None = None
    wait: object = None

    def wait_alone(self, *, is_due: bool = False) -> None:
        self.state, self.is_due, self.wait = "waiting", is_due, object()

    def wait_with(self, other: "ModelRow") -> None:
        self.state, self.is_due, self.wait = "waiting", other.is_due, other.wait


@dataclass
class Model:
    """What must be stored: the rows by id, the holder of each lane, and the state of the breaker.

    `answers` are all batches that were settled: which places were taken, and which were refused.
    """

    rows: dict[int, ModelRow] = field(default_factory=dict)
    holders: dict[int, str | None] = field(default_factory=lambda: dict.fromkeys(LANES))
    leased: set[int] = field(default_factory=set)
    failures: int = 0
    is_open: bool = False
    answers: list[tuple[list[int], list[int]]] = field(default_factory=list)
    #: The places that were refused since one was last taken.
    streak: list[int] = field(default_factory=list)

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
        self.answers.append(([], []))
        for sent in batch:
            self._remember(sent)
        is_open = self.failures > 0
        results = [self._settle(sent, batch[:number], is_open=is_open) for number, sent in enumerate(batch)]
        if probing and {"processed", "rejected"} & set(results):
            self.failures, self.is_open = 0, False
        if "down" in results:
            self.failures = self.failures + 1 if probing else max(self.failures, 1)
            self.is_open = True

    def _remember(self, sent: "Sent") -> None:
        taken, refused = self.answers[-1]
        place = self.rows[sent.row.id].place
        if isinstance(sent.outcome, Delivered):
            taken.append(place)
            self.streak.clear()
        elif isinstance(sent.outcome, Rejected | Unreachable):
            refused.append(place)
            self.streak.append(place)

    def _settle(self, sent: "Sent", before: Sequence["Sent"], *, is_open: bool) -> str:
        """Apply one outcome, and return what it shows."""
        row = self.rows[sent.row.id]
        shows = self._shows(row, sent.outcome, is_open=is_open)
        match shows:
            case "processed":
                row.state = "processed"
            case "nothing":
                self._keep_behind(row, sent, before)
            case "down" | "doubt" | "in flight":
                row.wait_alone()
            case "fault" | "rejected":
                row.attempts += 1
                row.wait_alone()
                if shows == "rejected" or row.attempts == MAX_ATTEMPTS:
                    row.state = "dead"
        if isinstance(sent.outcome, Unreachable | Rejected):
            row.refused_at = len(self.answers)
        return shows

    def _shows(self, row: ModelRow, outcome: Outcome | None, *, is_open: bool) -> str:
        match outcome:
            case Delivered():
                return "processed"
            case NotSent():
                return "nothing"
            case InFlight():
                return "in flight"
            case Failed():
                return "fault"
            case _ if len(self.streak) >= REFUSED_IN_A_ROW and len(set(self.streak)) > 1:
                return "down"
            case Rejected():
                return "rejected"
            case _ if is_open or not any(taken for taken, _ in self.answers):
                return "down"
            case _:
                return "fault" if self._is_at_fault(row) else "doubt"

    def _is_at_fault(self, row: ModelRow) -> bool:
        """Return whether others were taken since the row was refused, and hardly any was refused."""
        since = self.answers[row.refused_at :] if row.refused_at is not None else []
        refused = {place for _, refused in since for place in refused} | {row.place}
        return sum(len(taken) for taken, _ in since) >= len(refused) * TAKEN_FOR_EACH_REFUSED

    def _keep_behind(self, row: ModelRow, sent: "Sent", before: Sequence["Sent"]) -> None:
        """Make a row that was not sent wait with the waiting row before it. Behind a dead row it stays ready."""
        ahead = [self.rows[other.row.id] for other in before if self.rows[other.row.id].place == row.place]
        ahead = [other for other in ahead if other.state == "waiting"]
        if sent.head and (head := self.head_of(sent.row.id)):
            row.wait_with(head)
        elif sent.head:
            # The call of the earlier row has ended meanwhile.
            row.wait_alone(is_due=True)
        elif ahead:
            row.wait_with(ahead[-1])

    def settle_late(self, sent: "Sent") -> None:
        """Settle the end of a call that has outlasted its batch. The rows that have waited with it move on."""
        row = self.rows[sent.row.id]
        later = [other for other in self.rows.values() if other is not row and other.wait is row.wait]
        self.settle([sent], probing=False)
        for other in later:
            if other.state == "waiting" and row.state == "waiting":
                other.wait_with(row)
            elif other.state == "waiting":
                other.wait_alone(is_due=True)


@dataclass
class Sent:
    """A fetched row and its outcome. `head` is the earlier row of its aggregate that waits, if there is one."""

    row: Row
    head: ModelRow | None
    outcome: Outcome | None = None
