"""Keeping what we hold: all leases of a process are renewed each second, by one thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import Lane
from worker import metrics

#: Four renewals fit into one lease: three may fail.
RENEW_SECONDS = 1.0

log = structlog.get_logger()


class Leases:
    """The lanes that this process holds at the moment."""

    def __init__(self, db: sessionmaker[Session]) -> None:
        self._db = db
        self._held: set[Lane] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def holding(self, lane: Lane) -> Iterator[None]:
        """Renew the lease of a lane while the block runs."""
        with self._lock:
            self._held.add(lane)
        metrics.HELD.labels(lane.destination).inc()
        try:
            yield
        finally:
            metrics.HELD.labels(lane.destination).dec()
            with self._lock:
                self._held.discard(lane)

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
            with self._lock:
                held = list(self._held)
            if held:
                self._renew(held)

    def _renew(self, held: list[Lane]) -> None:
        try:
            with self._db.begin() as session:
                outbox.renew(session, held)
        except SQLAlchemyError as error:
            # What can't be renewed is lost to us after the lease, and the fence says so.
            log.warning("leases.not_renewed", lanes=len(held), error=type(error).__name__)
