"""The history of a destination: what it has lately answered, as one process has seen it. Pure."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from uuid import UUID

from domain.outbox.delivery.blame import Neighbours
from domain.outbox.delivery.outcomes import Cause, Delivery, Unreachable, is_refused, is_taken
from domain.outbox.table import Row

#: When as many rows in a row were refused, of two aggregates at the least, none of them is at fault. One row in three
#: that breaks its consumer is taken for an outage once in 200 times.
REFUSED_IN_A_ROW = 5

#: A destination that was down has recovered when it has taken as many rows.
RECOVERED_AFTER = 16

#: Many were refused if fewer than so many were taken for each of them. The row itself counts as one of them, so that it
#: takes as many neighbours at the least to say that an outage is its own fault.
TAKEN_FOR_EACH_REFUSED = 10

#: The batches that are remembered.
BATCHES = 1_000


@dataclass(frozen=True, slots=True)
class _Batch:
    at: datetime
    taken: int
    refused: frozenset[UUID]


class History:
    """What the rows of a destination were answered. Safe for threads.

    It is kept in memory: a process that has just started knows nothing, and so blames no row.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._batches: deque[_Batch] = deque(maxlen=BATCHES)
        #: When a row was last taken, None if none ever was.
        self._taken_at: datetime | None = None
        #: Of the answers since a row was last taken: how many there were, to which aggregates, and why.
        self._refused, self._refused_to, self._causes = 0, set[UUID](), set[Cause | None]()
        #: How many rows must still be taken before the destination has recovered.
        self._to_take = 0
        #: When the destination last was up again after it had been down.
        self._up_since: datetime | None = None

    def add(self, at: datetime, deliveries: Sequence[Delivery], *, since: datetime | None = None) -> None:
        """Remember a batch, which was settled at this time of the database.

        With `since` its calls began before that time. If rows were taken after it, that it was refused says nothing of
        the present: calls that hang end together, long after others were taken.
        """
        taken = sum(is_taken(outcome) for _, outcome in deliveries)
        refused = [(row, outcome) for row, outcome in deliveries if is_refused(outcome)]
        with self._lock:
            if taken:
                self._taken_at = at
                self._to_take -= min(taken, self._to_take)
                self._refused, self._refused_to, self._causes = 0, set(), set()
            is_old = since is not None and self._taken_at is not None and self._taken_at > since
            if refused and not is_old:
                last_taken = max((row.id for row, outcome in deliveries if is_taken(outcome)), default=0)
                self._count([(row, outcome) for row, outcome in refused if row.id > last_taken])
            if taken or refused:
                self._batches.append(_Batch(at, taken, frozenset(row.aggregate_id for row, _ in refused)))

    def _count(self, refused: Sequence[Delivery]) -> None:
        self._refused += len(refused)
        self._refused_to |= {row.aggregate_id for row, _ in refused}
        self._causes |= {outcome.cause if isinstance(outcome, Unreachable) else None for _, outcome in refused}

    def begin_recovery(self, at: datetime) -> None:
        """The destination was down, and is up again: nobody is at fault before it has recovered."""
        with self._lock:
            self._to_take = RECOVERED_AFTER
            self._up_since = at

    @property
    def is_gone(self) -> bool:
        """Whether several aggregates in a row were answered that the destination wants nothing more."""
        with self._lock:
            return self._causes == {Cause.GONE} and len(self._refused_to) > 1

    def neighbours_of(self, row: Row) -> Neighbours:
        """Return what the neighbours of a row were answered. The row's own batch has been added before."""
        with self._lock:
            if self._refused >= REFUSED_IN_A_ROW and len(self._refused_to) > 1:
                return Neighbours.ALL_REFUSED
            if self._taken_at is None:
                return Neighbours.NEVER_TAKEN
            if self._to_take:
                return Neighbours.RECOVERING
            return self._since(row.unreachable_at, row.aggregate_id)

    def _since(self, refused_at: datetime | None, aggregate: UUID) -> Neighbours:
        # What was refused in an outage was refused with all others. That says nothing against the row, and its
        # neighbours, which were taken after the outage, say nothing either: the next outage may have begun.
        if refused_at and self._up_since and refused_at <= self._up_since:
            return Neighbours.UNKNOWN
        since = [batch for batch in self._batches if refused_at and batch.at > refused_at]
        taken = sum(batch.taken for batch in since)
        refused = len({aggregate}.union(*(batch.refused for batch in since)))
        if not taken:
            return Neighbours.UNKNOWN
        return Neighbours.MANY_REFUSED if taken < refused * TAKEN_FOR_EACH_REFUSED else Neighbours.TAKEN
