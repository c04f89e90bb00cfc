"""What a wake-up starts. `worker.process` runs these actors."""

import sys
import threading
import time
from contextlib import suppress

import dramatiq
import structlog
from dramatiq import Broker, Middleware, Worker
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from domain.runtime.rounds import isolate_round
from domain.runtime.schema import lacks_schema
from domain.runtime.settings import Settings
from domain.runtime.wakeups import (
    DRAINING,
    EXPIRE_RESERVATIONS,
    MAINTENANCE,
    PROCESS_OUTBOX,
    PRUNE,
    RESET_LOW_WATERMARKS,
    SEAL_AUDIT,
)
from worker import ending, maintenance
from worker.app import App, open_app
from worker.broker import DOWN, connect
from worker.maintenance import Retention
from worker.relay.dispatcher import Dispatcher

#: Maintenance ends before its next wake-up, which continues. So a backlog of one kind uses one thread at the most, and
#: a worker with a single thread still delivers, expires and prunes in turns.
EXPIRE_SECONDS, PRUNE_SECONDS, SEAL_SECONDS = 2.0, 4.0, 2.0

#: Enough wake-ups for all processes.
MANY = 8

#: A worker that got no wake-up for this time looks for due rows by itself: the broker may be down, or have lost them.
LOOK_SECONDS = 5.0

#: A worker that started before its database tries again to open it after this time.
OPEN_AGAIN_SECONDS = 1.0

NOT_LOOKED = (
    "This worker did not look for due events this time; it does at the next wake-up, or after some seconds. If"
    " this continues, report the error."
)

log = structlog.get_logger()


class Running(Middleware):
    """The parts of this process that the actors use, from `open` to `close`."""

    app: App
    dispatcher: Dispatcher
    #: By the monotonic clock: when this process looks for due rows, if no wake-up comes before.
    _looks_at: float

    @property
    def actor_options(self) -> set[str]:
        """Accept the option `throws`: these errors pass by themselves and are logged in one line."""
        return {"throws"}

    def open(self, threads: int) -> None:
        """Open the app. Raises ConfigurationError, and SystemExit if the process has to end before its database is up.

        No hook of Dramatiq does this: it would swallow an error, and the process would fail at every wake-up for ever.
        """
        self.app = _open(threads=threads)
        self.dispatcher = Dispatcher(self.app.relay, threads=threads, busy=_wake_another)
        self.app.liveness.watch(self._take_over)
        self._looks_at = time.monotonic() + LOOK_SECONDS
        threading.Thread(target=self._look, name="look", daemon=True).start()

    def dispatch(self) -> None:
        """Have all lanes with due rows drained. It does not wait for that."""
        self._looks_at = time.monotonic() + LOOK_SECONDS
        self.dispatcher.dispatch()

    def _look(self) -> None:
        """Dispatch whenever no wake-up has come for some time, until the process stops."""
        while not self.app.relay.stopping.wait(max(0.0, self._looks_at - time.monotonic())):
            if time.monotonic() >= self._looks_at:
                isolate_round(self._dispatch_without_wakeup, thread="look", advice=NOT_LOOKED)

    def _dispatch_without_wakeup(self) -> None:
        try:
            self.dispatch()
        except SQLAlchemyError as error:
            log.warning("relay.interrupted", error=type(error).__name__)

    def _take_over(self) -> None:
        """Drain the lanes that a dead process has left, with the help of others, which may have more threads free."""
        _wake_another()
        self.dispatcher.dispatch()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self.app.relay.stopping.set()

    def close(self, seconds: float) -> None:
        """Wait until the calls in flight have ended, for so long at the most, and release all lanes."""
        ends_at = time.monotonic() + seconds
        self.dispatcher.close(seconds)
        self.app.close(max(0.0, ends_at - time.monotonic()))


def _open(*, threads: int) -> App:
    """Open the app, as soon as there is a migrated database."""
    while True:
        try:
            return open_app(settings, threads=threads)
        except SQLAlchemyError as error:
            advice = {"advice": "run bin/migrate"} if lacks_schema(error) else {}
            log.warning("worker.waits", error=str(error).splitlines()[0], **advice)
        if ending.wait(OPEN_AGAIN_SECONDS):
            sys.exit(0)


settings = Settings.load()
running = Running()
broker, waiting = connect(settings.broker(), [running])


@dramatiq.actor(broker=broker, actor_name=PROCESS_OUTBOX, queue_name=DRAINING, throws=OperationalError)
def process_outbox() -> None:
    """Have the outbox drained by the threads of its destinations, until nothing is due."""
    running.dispatch()


def _wake_another() -> None:
    """Let another process help, unless enough wake-ups wait. If the broker is down, the scheduler sends one later."""
    with suppress(*DOWN):
        if waiting(DRAINING) < MANY:
            process_outbox.send()


@dramatiq.actor(broker=broker, actor_name=EXPIRE_RESERVATIONS, queue_name=MAINTENANCE, throws=OperationalError)
def expire_reservations() -> None:
    """Expire the overdue holds."""
    maintenance.expire(running.app.db, running.app.relay.stopping, running.app.routes, seconds=EXPIRE_SECONDS)


@dramatiq.actor(broker=broker, actor_name=PRUNE, queue_name=MAINTENANCE, throws=OperationalError)
def prune() -> None:
    """Delete what has been kept long enough."""
    maintenance.prune(running.app.db, running.app.relay.stopping, Retention.of(settings), seconds=PRUNE_SECONDS)


@dramatiq.actor(broker=broker, actor_name=SEAL_AUDIT, queue_name=MAINTENANCE, throws=OperationalError)
def seal_audit() -> None:
    """Seal what was committed to the audit."""
    maintenance.seal_audit(running.app.db, running.app.relay.stopping, seconds=SEAL_SECONDS)


@dramatiq.actor(broker=broker, actor_name=RESET_LOW_WATERMARKS, queue_name=MAINTENANCE, throws=OperationalError)
def reset_low_watermarks() -> None:
    """Repair the low watermarks that keep rows from being delivered, and look whether the routes have changed."""
    maintenance.reset_low_watermarks(running.app.db)
    maintenance.compare_routes(running.app.db, running.app.routes)
