"""Keeping what we hold: all leases of a process are renewed each second, by one thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import Lane
from worker.telemetry import metrics

#: Four renewals fit into one lease: three may fail.
RENEW_SECONDS = 1.0

#: No hold that is well takes as long: its last batch begins within a second, and takes a few time-outs of
#: a minute at most. One that does hangs in a way that nobody foresaw, and another worker may have the lane.
LONGEST_SECONDS = 900.0

HANGS = (
    f"A delivery has not ended for {LONGEST_SECONDS:g} s. Other workers go on with its lane. Restart this"
    " worker: until then it has a thread less."
)

log = structlog.get_logger()


class Leases:
    """The lanes that this process holds at the moment, with the moment since when by the monotonic clock."""

    def __init__(self, db: sessionmaker[Session]) -> None:
        self._db = db
        self._held: dict[Lane, float] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def holding(self, lane: Lane) -> Iterator[None]:
        """Renew the lease of a lane while the block runs, for LONGEST_SECONDS at the most."""
        with self._lock:
            self._held[lane] = time.monotonic()
        metrics.NOT_SENT.labels(lane.destination).inc()
        try:
            yield
        finally:
            metrics.NOT_SENT.labels(lane.destination).dec()
            with self._lock:
                self._held.pop(lane, None)

    def close(self) -> None:
        """Stop renewing, and give back what a call that does not end still holds."""
        self._stopped.set()
        self._thread.join()
        with self._lock, self._db.begin() as session:
            for lane in sorted(self._held, key=lambda lane: (lane.destination, lane.number)):
                # A probe that it began may be another's by now.
                outbox.release(session, replace(lane, probing=False))

    def _run(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            self._give_up()
            with self._lock:
                held = list(self._held)
            if held:
                self._renew(held)

    def _give_up(self) -> None:
        """Let go of what is held for too long. The fence keeps out what its thread may still say."""
        with self._lock:
            too_long = [lane for lane, since in self._held.items() if time.monotonic() - since > LONGEST_SECONDS]
            for lane in too_long:
                del self._held[lane]
        for lane in too_long:
            log.error("leases.given_up", destination=lane.destination, lane=lane.number, advice=HANGS)

    def _renew(self, held: list[Lane]) -> None:
        try:
            with self._db.begin() as session:
                outbox.renew(session, held)
        except SQLAlchemyError as error:
            # What can't be renewed is lost to us after the lease, and the fence says so.
            log.warning("leases.not_renewed", lanes=len(held), error=type(error).__name__)
