"""The status of each destination: how many rows are pending, since when, and whether it is paused or down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    ScalarSelect,
    Select,
    String,
    and_,
    column,
    func,
    select,
    text,
    true,
    union,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain.outbox.operations.destinations import FACTS, DestinationStatus
from domain.outbox.operations.leases import IS_LEASED
from domain.outbox.table import (
    BY_AGGREGATE,
    BY_DESTINATION,
    BY_LANE,
    LANES,
    destinations,
    lanes,
    outbox,
    ready,
    waiting,
    within,
)

#: The rows of one kind and one destination are counted up to this number. Before its first vacuum a backlog takes
#: 2 to 15 µs per row to count: counting a million rows would slow the delivery that should make it smaller.
MAX_COUNTED = 20_000

#: Waiting rows that are read to find the oldest, which costs more than counting. With more, the result is nearly exact.
OLDEST_READ = 1_000

#: Reading the statuses is cancelled after this time, so that it never delays deliveries.
READ_SECONDS = 3


CountName = Literal["pending", "waiting", "dead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedStatus(DestinationStatus):
    """The status of a destination with its rows counted.

    This release may not know the destination: an older release may meet rows of a newer one.

    `ready` rows can be delivered now, `waiting` ones later, and `dead` excludes discarded ones: each is counted up to
    MAX_COUNTED. `oldest_pending_at` is when the oldest pending row was recorded or replayed. `holders` are the
    holders of its leased lanes.
    """

    ready: int
    waiting: int
    dead: int
    oldest_pending_at: datetime | None
    read_at: datetime
    holders: Sequence[str]

    @property
    def pending(self) -> int:
        return self.ready + self.waiting

    @property
    def lower_bounds(self) -> Sequence[CountName]:
        """The counts that may be higher, because counting ended at MAX_COUNTED."""
        parts: Mapping[CountName, Sequence[int]] = {
            "pending": (self.ready, self.waiting),
            "waiting": (self.waiting,),
            "dead": (self.dead,),
        }
        return [count for count, counted in parts.items() if MAX_COUNTED in counted]

    @property
    def oldest_pending_age_seconds(self) -> float:
        """The age of the oldest pending row by the database's clock, 0 if none is pending."""
        since = self.oldest_pending_at or self.read_at
        return max((self.read_at - since).total_seconds(), 0.0)

    @property
    def breaker_open(self) -> bool:
        return self.failures > 0


def read_statuses(session: Session) -> Sequence[CountedStatus]:
    """Return the status of every destination that is registered or has rows, in order of name.

    It reads the indexes of pending and dead rows only, so processed rows cost nothing. Raises
    OperationalError if it takes longer than READ_SECONDS.
    """
    session.execute(_BY_INDEX)
    return [CountedStatus(**row) for row in session.execute(STATUSES).mappings()]


#: Without statistics, or just after a large insert, the planner may prefer to read the whole table.
_BY_INDEX = text(
    f"SET LOCAL statement_timeout = '{READ_SECONDS}s'; SET LOCAL jit = off; SET LOCAL enable_seqscan = off;"
    " SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off"
)

_dead = and_(outbox.c.dead_at.is_not(None), outbox.c.discarded_at.is_(None))


def _with_rows(kind: str, condition: ColumnElement[bool]) -> CTE:
    """Return the destinations that have such rows, by one descent of their index for each."""
    first = select(func.min(outbox.c.destination).label("name")).where(condition).cte(f"{kind}_names", recursive=True)
    following = select(func.min(outbox.c.destination)).where(condition, outbox.c.destination > first.c.name)
    return first.union_all(select(following.scalar_subquery()).where(first.c.name.is_not(None)))


_names = union(
    select(destinations.c.name),
    *(
        select(_with_rows(kind, condition).c.name)
        for kind, condition in (("ready", ready), ("waiting", waiting), ("dead", outbox.c.dead_at.is_not(None)))
    ),
).subquery("names")


def _counted(kind: str, index: Sequence[ColumnElement[Any]], *conditions: ColumnElement[bool]) -> FromClause:
    # In the order of an index, so that no plan reads the whole table.
    found = select(outbox.c.id).where(*conditions).order_by(*index).limit(MAX_COUNTED)
    rows = found.correlate(_names).subquery()
    return select(func.count().label("rows"), func.min(rows.c.id).label("first")).select_from(rows).lateral(kind)


_is_its_own = outbox.c.destination == _names.c.name
_ready = _counted("ready", BY_LANE, ready, _is_its_own)
_waiting = _counted("waiting", BY_AGGREGATE, waiting, _is_its_own)
_dead_rows = _counted("dead", BY_DESTINATION, _dead, _is_its_own)

#: When a row was recorded, or replayed.
_since = func.coalesce(outbox.c.replayed_at, outbox.c.created_at)


def _oldest_ready() -> ScalarSelect[object]:
    """Look at the first row of each lane only: ids are given in the order of time, or nearly."""
    lane = func.generate_series(0, LANES - 1).table_valued(column("number")).render_derived("every_lane")
    head = (
        select(_since.label("since"))
        .where(ready, within(BY_LANE, (_names.c.name, lane.c.number)))
        .order_by(*BY_LANE)
        .limit(1)
        .correlate(_names, lane)
        .lateral("head")
    )
    oldest: Select[object] = select(func.min(head.c.since)).select_from(lane.join(head, true()))
    return oldest.correlate(_names).scalar_subquery()


def _oldest_waiting() -> ColumnElement[object]:
    """Look at the first row, and at some others: a replayed row is younger than its id suggests."""
    first = select(_since).where(outbox.c.id == _waiting.c.first).correlate(_waiting).scalar_subquery()
    some = select(_since.label("since")).where(waiting, outbox.c.destination == _names.c.name)
    # In the order of an index, so that no plan reads the whole table.
    some = some.order_by(outbox.c.aggregate_id, outbox.c.id).limit(OLDEST_READ)
    read = some.correlate(_names).subquery("read")
    return func.least(first, select(func.min(read.c.since)).correlate(_names).scalar_subquery())


#: The holders of the lanes that are leased, lane by lane.
_holders = (
    select(lanes.c.holder)
    .where(lanes.c.destination == _names.c.name, IS_LEASED)
    .order_by(lanes.c.lane)
    .correlate(_names)
    .scalar_subquery()
)

STATUSES = (
    select(
        _names.c.name,
        *FACTS,
        _ready.c.rows.label("ready"),
        _waiting.c.rows.label("waiting"),
        _dead_rows.c.rows.label("dead"),
        func.least(_oldest_ready(), _oldest_waiting()).label("oldest_pending_at"),
        func.clock_timestamp().label("read_at"),
        func.array(_holders, type_=ARRAY(String)).label("holders"),
    )
    .select_from(_names)
    .join(_ready, true())
    .join(_waiting, true())
    .join(_dead_rows, true())
    .outerjoin(destinations, destinations.c.name == _names.c.name)
    .where(_names.c.name.is_not(None))
    .order_by(_names.c.name)
)
