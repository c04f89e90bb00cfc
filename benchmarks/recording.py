"""Events recorded at a steady rate, as the API records them: some at a time, and a ring after each commit."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from benchmarks.environment import Stage
from domain.outbox import Event, record
from domain.outbox.routes_file import load
from domain.runtime import database
from domain.runtime.settings import Settings
from worker.broker import connect
from worker.scheduler import ring

#: An API rings at most once in that time, and commits together what came meanwhile.
PAUSE_SECONDS = 0.02

PAYLOAD = {
    "item_id": 1,
    "sku": "sku-1",
    "quantity": 1,
    "status": "PENDING",
    "version": 1,
    "guest_id": None,
    "expires_at": "2026-01-01T00:00:00+00:00",
}


class Recorder:
    """What records. `recorded` counts events; while it is paused nothing is recorded and nobody rings."""

    def __init__(self, stage: Stage, aggregates: Sequence[UUID], rate: int) -> None:
        settings = Settings.model_validate(stage.environment)
        self.recorded = 0
        self._db = database.sessions(database.connect(settings, connections=1), routes=load(settings))
        self._broker, self._waiting = connect(settings.broker(), [])
        self._aggregates = aggregates
        self._rate = rate
        self._stopped = threading.Event()
        self._goes = threading.Event()
        self._goes.set()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def pause(self) -> None:
        self._goes.clear()

    def go_on(self) -> None:
        self._goes.set()

    def stop(self) -> None:
        self._stopped.set()
        self._goes.set()
        self._thread.join()
        self._db.kw["bind"].dispose()
        self._broker.close()

    def _run(self) -> None:
        last, due = time.monotonic(), 0.0
        while not self._stopped.wait(PAUSE_SECONDS):
            if not self._goes.is_set():
                self._goes.wait()
                last = time.monotonic()
            # What a slow commit has kept from being recorded is recorded with the next.
            now = time.monotonic()
            due += (now - last) * self._rate
            last = now
            if due >= 1:
                self._record(int(due))
                due -= int(due)

    def _record(self, count: int) -> None:
        events = [self._event(n) for n in range(self.recorded, self.recorded + count)]
        with self._db.begin() as session:
            record(session, events)
        self.recorded += count
        ring(self._broker, self._waiting, "process_outbox")

    def _event(self, number: int) -> Event:
        aggregate = self._aggregates[number % len(self._aggregates)]
        return Event("booking.created", aggregate, {"booking_id": str(aggregate), **PAYLOAD})


@contextmanager
def recording(stage: Stage, aggregates: Sequence[UUID], *, rate: int) -> Iterator[Recorder]:
    """Record so many events a second, of these aggregates in turn, while the block runs."""
    recorder = Recorder(stage, aggregates, rate)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()
