"""How the outbox stands, by destination: what is pending, since when, and what is in its way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    ScalarSelect,
    Select,
    String,
    column,
    func,
    select,
    text,
    true,
    union,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain.outbox.operations.destinations import FACTS, Destination
from domain.outbox.table import LANES, destinations, lanes, outbox, ready, waiting
from domain.runtime.database import CLOCK

#: Nothing is counted further than this, of one kind and for one destination. Before its first
#: vacuum a backlog takes 2 to 15 µs a row to count: a million would make itself larger by being counted.
MOST = 20_000

#: So many waiting rows are read themselves, which costs more, to tell the oldest. Of more than these it is nearly so.
READ = 1_000

#: A look that takes longer is given up: whoever looks is no reason for the outbox to be late.
LOOK_SECONDS = 3


Count = Literal["pending", "waiting", "dead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing(Destination):
    """How a destination fares, known here or not: an older release may meet rows of a newer one.

    `ready` rows could leave, `waiting` ones have their time still to come, and `dead` leaves out
    what was discarded: each is counted up to MOST. `oldest_pending_at` is when the oldest of the
    others was promised, or promised again. `holders` are the workers that have lanes of it.
    """

    ready: int
    waiting: int
    dead: int
    oldest_pending_at: datetime | None
    looked_at: datetime
    holders: Sequence[str]

    @property
    def pending(self) -> int:
        return self.ready + self.waiting

    @property
    def lower_bounds(self) -> Sequence[Count]:
        """The counts that may be higher, as counting ended at MOST."""
        parts: Mapping[Count, Sequence[int]] = {
            "pending": (self.ready, self.waiting),
            "waiting": (self.waiting,),
            "dead": (self.dead,),
        }
        return [count for count, counted in parts.items() if MOST in counted]

    @property
    def oldest_pending_age_seconds(self) -> float:
        """How old it was by the database's clock, and 0 if nothing is pending."""
        since = self.oldest_pending_at or self.looked_at
        return max((self.looked_at - since).total_seconds(), 0.0)

    @property
    def breaker_open(self) -> bool:
        return self.failures > 0


def look(session: Session) -> Sequence[Standing]:
    """Return how every destination stands that is known or has rows, in the order of their names.

    It reads the indexes of what is pending or dead, so processed rows cost nothing. Raises
    OperationalError if it takes longer than LOOK_SECONDS.
    """
    session.execute(_CAREFULLY)
    return [Standing(**row) for row in session.execute(LOOK).mappings()]


#: Without statistics, or just after a large insert, the planner may prefer to read the whole table.
_CAREFULLY = text(
    f"SET LOCAL statement_timeout = '{LOOK_SECONDS}s'; SET LOCAL enable_seqscan = off;"
    " SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off"
)

_dead = (outbox.c.dead_at.is_not(None), outbox.c.discarded_at.is_(None))


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


def _counted(kind: str, *conditions: ColumnElement[bool]) -> FromClause:
    found = select(outbox.c.id).where(*conditions, outbox.c.destination == _names.c.name).limit(MOST)
    rows = found.correlate(_names).subquery()
    return select(func.count().label("rows"), func.min(rows.c.id).label("first")).select_from(rows).lateral(kind)


_ready, _waiting, _given_up = _counted("ready", ready), _counted("waiting", waiting), _counted("dead", *_dead)

#: When a row was promised, or promised again.
_since = func.coalesce(outbox.c.replayed_at, outbox.c.created_at)


def _oldest_ready() -> ScalarSelect[object]:
    """The first row of each lane: ids are given in the order of time, or nearly."""
    lane = func.generate_series(0, LANES - 1).table_valued(column("number")).render_derived("every_lane")
    head = (
        select(_since.label("since"))
        .where(ready, outbox.c.destination == _names.c.name, outbox.c.lane == lane.c.number)
        .order_by(outbox.c.id)
        .limit(1)
        .correlate(_names, lane)
        .lateral("head")
    )
    oldest: Select[object] = select(func.min(head.c.since)).select_from(lane.join(head, true()))
    return oldest.correlate(_names).scalar_subquery()


def _oldest_waiting() -> ColumnElement[object]:
    """The first row, or one with a higher number, as those that were replayed are younger than theirs."""
    first = select(_since).where(outbox.c.id == _waiting.c.first).correlate(_waiting).scalar_subquery()
    some = select(_since.label("since")).where(waiting, outbox.c.destination == _names.c.name)
    # In the order of their index, so that no plan gets them by reading all the table.
    some = some.order_by(outbox.c.aggregate_id, outbox.c.id).limit(READ)
    read = some.correlate(_names).subquery("read")
    return func.least(first, select(func.min(read.c.since)).correlate(_names).scalar_subquery())


#: Whose leases last, lane by lane.
_holders = (
    select(lanes.c.holder)
    .where(lanes.c.destination == _names.c.name, lanes.c.holder.is_not(None), lanes.c.leased_until > CLOCK)
    .order_by(lanes.c.lane)
    .correlate(_names)
    .scalar_subquery()
)

LOOK = (
    select(
        _names.c.name,
        *FACTS,
        _ready.c.rows.label("ready"),
        _waiting.c.rows.label("waiting"),
        _given_up.c.rows.label("dead"),
        func.least(_oldest_ready(), _oldest_waiting()).label("oldest_pending_at"),
        func.clock_timestamp().label("looked_at"),
        func.array(_holders, type_=ARRAY(String)).label("holders"),
    )
    .select_from(_names)
    .join(_ready, true())
    .join(_waiting, true())
    .join(_given_up, true())
    .outerjoin(destinations, destinations.c.name == _names.c.name)
    .where(_names.c.name.is_not(None))
    .order_by(_names.c.name)
)
