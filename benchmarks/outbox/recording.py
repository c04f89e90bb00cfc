"""Events recorded at a steady rate, as the API records them: several in a commit, and a wake-up after each commit."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from benchmarks.environment import Environment
from domain.fulfilment import load_routes
from domain.outbox import Event, record
from domain.runtime import database
from domain.runtime.settings import Settings
from domain.runtime.wakeups import PROCESS_OUTBOX
from worker.broker import connect
from worker.scheduler import wake

#: An API process sends at most one wake-up in this time, and commits together what came meanwhile.
PAUSE_SECONDS = 0.02

PAYLOAD = {
    "item_id": 1,
    "sku": "sku-1",
    "quantity": 1,
    "lines": [{"item_id": 1, "sku": "sku-1", "quantity": 1}],
    "start": None,
    "end": None,
    "status": "PENDING",
    "version": 1,
    "guest_id": None,
    "expires_at": "2026-01-01T00:00:00+00:00",
}


class Recorder:
    """A thread that records events. `recorded` counts them. While it is paused it sends no wake-ups either."""

    def __init__(self, environment: Environment, aggregates: Sequence[UUID], rate: int) -> None:
        settings = Settings.model_validate(environment.variables)
        self.recorded = 0
        self._db = database.sessions(database.connect(settings, connections=1))
        self._routes = load_routes(settings)
        self._broker, self._waiting = connect(settings.broker(), [])
        self._aggregates = aggregates
        self._rate = rate
        self._stopped = threading.Event()
        self._may_record = threading.Event()
        self._may_record.set()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def pause(self) -> None:
        self._may_record.clear()

    def resume(self) -> None:
        self._may_record.set()

    def stop(self) -> None:
        self._stopped.set()
        self._may_record.set()
        self._thread.join()
        self._db.kw["bind"].dispose()
        self._broker.close()

    def _run(self) -> None:
        last, due = time.monotonic(), 0.0
        while not self._stopped.wait(PAUSE_SECONDS):
            if not self._may_record.is_set():
                self._may_record.wait()
                last = time.monotonic()
            # After a slow commit, the next one records what became due meanwhile.
            now = time.monotonic()
            due += (now - last) * self._rate
            last = now
            if due >= 1:
                self._record(int(due))
                due -= int(due)

    def _record(self, count: int) -> None:
        events = [self._event(n) for n in range(self.recorded, self.recorded + count)]
        with self._db.begin() as session:
            record(session, events, self._routes)
        self.recorded += count
        wake(self._broker, self._waiting, PROCESS_OUTBOX)

    def _event(self, number: int) -> Event:
        aggregate = self._aggregates[number % len(self._aggregates)]
        return Event("booking.created", aggregate, {"booking_id": str(aggregate), **PAYLOAD})


@contextmanager
def recording(environment: Environment, aggregates: Sequence[UUID], *, rate: int) -> Iterator[Recorder]:
    """Record that many events a second, of these aggregates in turn, while the block runs."""
    recorder = Recorder(environment, aggregates, rate)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()
