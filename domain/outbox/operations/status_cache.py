"""The statuses of the destinations, cached for /metrics: many requests cost the database one query."""

import threading
import time
from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain.outbox.operations.status import MAX_COUNTED, CountedStatus, read_statuses
from domain.runtime.metrics import Reading

#: A status is not read again for this time, in seconds.
FRESH_SECONDS = 5.0

#: Nor for this many times as long as reading took, so that reading uses a twentieth of one connection at most ...
REST = 19

#: ... but never for longer than this, in seconds: who alerts on a figure must be able to rely on its age.
STALE_SECONDS = 20.0

log = structlog.get_logger()

#: What each figure means, and when to alert on it.
FIGURES: Mapping[str, str] = {
    "pending": f"Rows not delivered yet and not dead, counted up to {MAX_COUNTED:,} ready and as many waiting ones."
    " It may be high for a while; alert on their age.",
    "waiting": "Pending rows that wait for their next attempt, or for an earlier row that does."
    " Alert if it stays above 0 while the breaker is closed.",
    "dead": "Dead letters that are not discarded. Alert above 0: each needs a person, to replay or to discard it.",
    "oldest_pending_age_seconds": "How long the oldest pending row has been pending, 0 if there is none."
    " The first metric to alert on: above 60 s nothing is delivered, or not fast enough.",
    "breaker_open": "1 while the destination is down. Alert if it lasts for 5 minutes.",
    "paused": "1 while the destination is paused, by an operator or as it answered 410. Alert if that lasts long.",
}

UP = "1 if the database could be asked for the figures of the outbox; if 0 they are missing. Alert on 0."


class StatusCache:
    """Reads the statuses when it is asked and they are stale. Safe for threads.

    Elsewhere in the domain the caller owns the transaction. This cache alone begins one, because its caller does not
    know whether the statuses have to be read; the transaction only reads.
    """

    def __init__(self, db: sessionmaker[Session]) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._stale_at = 0.0
        self._statuses: Sequence[CountedStatus] | None = None

    def get(self) -> Sequence[CountedStatus] | None:
        """Return the statuses as they were a moment ago, or None if the database can't be asked."""
        with self._lock:
            began = time.monotonic()
            if began >= self._stale_at:
                self._statuses = self._read()
                ended = time.monotonic()
                self._stale_at = ended + fresh_for(ended - began)
            return self._statuses

    def readings(self) -> Sequence[Reading]:
        """Return the statuses as metrics."""
        statuses = self.get()
        up = Reading(name="holdfast_outbox_up", help=UP, values={"": float(statuses is not None)})
        return [up, *(_reading(figure, meaning, statuses or ()) for figure, meaning in FIGURES.items())]

    def _read(self) -> Sequence[CountedStatus] | None:
        try:
            with self._db.begin() as session:
                return read_statuses(session)
        except SQLAlchemyError as error:
            log.warning("outbox.status_unknown", error=str(error).splitlines()[0])
            return None


def fresh_for(reading: float) -> float:
    """Return how long a status is used that took so long to read, both in seconds."""
    return min(max(FRESH_SECONDS, REST * reading), STALE_SECONDS)


def _reading(figure: str, meaning: str, statuses: Sequence[CountedStatus]) -> Reading:
    values = {status.name: float(getattr(status, figure)) for status in statuses}
    return Reading(name=f"holdfast_outbox_{figure}", help=meaning, values=values)
