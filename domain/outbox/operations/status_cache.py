"""How the outbox stands, as /metrics shows it: looked at now and then, whoever asks and however often."""

import threading
import time
from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain.outbox.operations.status import MOST, Standing, look

#: Whoever asks again within this time, in seconds, gets the same answer.
FRESH_SECONDS = 5.0

#: And within so many times what the look took: looking keeps no more than a twentieth of one connection busy.
REST = 19

log = structlog.get_logger()

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
