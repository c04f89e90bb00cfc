"""How the outbox stands, by destination: what is pending, since when, and what is in its way."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    ScalarSelect,
    Select,
    case,
    column,
    extract,
    func,
    select,
    text,
    true,
    union,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain.outbox.table import LANES, destinations, outbox, ready, waiting

#: Nothing is counted further than this, of one kind and for one destination. Before its first
#: vacuum a backlog takes 2 to 15 µs a row to count: a million would make itself larger by being counted.
MOST = 20_000

#: A look that takes longer is given up: whoever looks is no reason for the outbox to be late.
LOOK_SECONDS = 3

#: Whoever asks again within this time, in seconds, gets the same answer.
FRESH_SECONDS = 5.0

#: And within so many times what the look took: looking keeps no more than a twentieth of one connection busy.
REST = 19

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Of one destination, whether it is known here or not: an older release may meet rows of a newer one."""

    destination: str
    pending: int
    waiting: int
    dead: int
    oldest_pending_age_seconds: float
    breaker_open: bool
    paused: bool


#: What the figures of a Standing mean, and when to worry about them.
FIGURES: Mapping[str, str] = {
    "pending": f"Rows not delivered yet and not dead, counted up to {MOST:,} ready and as many waiting ones."
    " It may be high for a while; alert on their age.",
    "waiting": "Pending rows that wait for their next attempt, or behind one that does."
    " Alert if it stays above 0 while the breaker is closed.",
    "dead": "Rows given up and not discarded. Alert above 0: each needs a person, to replay or to discard it.",
    "oldest_pending_age_seconds": "How long the oldest pending row has been pending, 0 if there is none."
    " The first metric to alert on: above 60 s nothing leaves, or not fast enough.",
    "breaker_open": "1 from when the destination was found down until it is found up. Alert if it lasts for 5 minutes.",
    "paused": "1 while an operator, or a destination that said it is gone, keeps everything back. Alert if forgotten.",
}

UP = "1 if the database said how the outbox stands; if 0 the other figures of the database are missing. Alert on 0."


def look(session: Session) -> Sequence[Standing]:
    """Return how every destination stands that is known or has rows, in the order of their names.

    It reads the indexes of what is pending or dead, so processed rows cost nothing. Raises
    OperationalError if it takes longer than LOOK_SECONDS.
    """
    session.execute(_CAREFULLY)
    return [Standing(**row) for row in session.execute(LOOK).mappings()]


class Watch:
    """Looks when it is asked to, and remembers what it saw. It only reads, so the transactions are its own."""

    def __init__(self, db: sessionmaker[Session]) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._stale_at = 0.0
        self._seen: Sequence[Standing] | None = None

    def seen(self) -> Sequence[Standing] | None:
        """Return how the outbox stood a moment ago, or None if the database does not tell."""
        with self._lock:
            began = time.monotonic()
            if began >= self._stale_at:
                self._seen = self._look()
                ended = time.monotonic()
                self._stale_at = ended + max(FRESH_SECONDS, REST * (ended - began))
            return self._seen

    def _look(self) -> Sequence[Standing] | None:
        try:
            with self._db.begin() as session:
                return look(session)
        except SQLAlchemyError as error:
            log.warning("outbox.unseen", error=str(error).splitlines()[0])
            return None


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


_oldest_waiting = select(_since).where(outbox.c.id == _waiting.c.first).correlate(_waiting).scalar_subquery()
_age = func.greatest(extract("epoch", func.clock_timestamp() - func.least(_oldest_ready(), _oldest_waiting)), 0)
LOOK = (
    select(
        _names.c.name.label("destination"),
        (_ready.c.rows + _waiting.c.rows).label("pending"),
        _waiting.c.rows.label("waiting"),
        _given_up.c.rows.label("dead"),
        case((_ready.c.rows + _waiting.c.rows == 0, 0.0), else_=_age).label("oldest_pending_age_seconds"),
        func.coalesce(destinations.c.failures > 0, False).label("breaker_open"),
        func.coalesce(destinations.c.paused, False).label("paused"),
    )
    .select_from(_names)
    .join(_ready, true())
    .join(_waiting, true())
    .join(_given_up, true())
    .outerjoin(destinations, destinations.c.name == _names.c.name)
    .where(_names.c.name.is_not(None))
    .order_by(_names.c.name)
)
