"""What a wake-up starts. `dramatiq worker.actors:broker` runs these actors."""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

import dramatiq
import structlog
from dramatiq import Broker, Middleware, Worker
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from domain.runtime import startup
from domain.runtime.errors import ConfigurationError
from domain.runtime.schema import lacks_schema
from domain.runtime.settings import Settings
from domain.runtime.wakeups import (
    DRAINING,
    EXPIRE_RESERVATIONS,
    MAINTENANCE,
    PROCESS_OUTBOX,
    PRUNE,
    RESET_LOW_WATERMARKS,
)
from worker import maintenance
from worker.app import App, open_app
from worker.broker import DOWN, connect
from worker.maintenance import Retention
from worker.ordering import calling_threads
from worker.relay.dispatcher import Dispatcher

#: Maintenance ends before its next wake-up, which continues. So a backlog of one kind uses one thread at the most, and
#: a worker with a single thread still delivers, expires and prunes in turns.
EXPIRE_SECONDS, PRUNE_SECONDS = 2.0, 4.0

#: Enough wake-ups for all processes.
MANY = 8

#: Calls that have begun get this time to end when the process stops.
GRACE_SECONDS = 6.0

#: A worker that started before its database tries again to open it after this time.
OPEN_AGAIN_SECONDS = 1.0

log = structlog.get_logger()


class Running(Middleware):
    """Opens the app when the worker process starts, and closes it when the process has stopped."""

    app: App
    dispatcher: Dispatcher

    @property
    def actor_options(self) -> set[str]:
        """Accept the option `throws`: these errors pass by themselves and are logged in one line."""
        return {"throws"}

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        self.app = _open(threads=worker.worker_threads, ended=_end_once())
        self.dispatcher = Dispatcher(self.app.relay, threads=worker.worker_threads, busy=_wake_another)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self.app.relay.stopping.set()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        try:
            self.dispatcher.close(GRACE_SECONDS)
            self.app.close()
        finally:
            # The lanes of calls that have not ended are released; the calls must not delay the exit.
            if calling_threads.any_alive():
                os._exit(0)


def _end_once() -> threading.Event:
    """Obey the first SIGTERM only. Return an event that it sets.

    systemd and honcho signal a whole process group. So this process gets SIGTERM from them and again from Dramatiq's
    parent, and a second one would make Dramatiq drop everything.
    """
    end = signal.getsignal(signal.SIGTERM)
    assert callable(end)
    ended = threading.Event()

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        ended.set()
        end(number, frame)

    signal.signal(signal.SIGTERM, first)
    return ended


def _open(*, threads: int, ended: threading.Event) -> App:
    """Open the app, as soon as there is a migrated database. Exits the process for a wrong configuration.

    Dramatiq would swallow an error that is raised here, and then fail at every wake-up for ever.
    """
    while True:
        try:
            return open_app(settings, threads=threads)
        except ConfigurationError as error:
            sys.exit(startup.report(error))
        except SQLAlchemyError as error:
            advice = {"advice": "run bin/migrate"} if lacks_schema(error) else {}
            log.warning("worker.waits", error=str(error).splitlines()[0], **advice)
        if ended.wait(OPEN_AGAIN_SECONDS):
            sys.exit(0)


settings = Settings.load()
running = Running()
broker, waiting = connect(settings.broker(), [running])


@dramatiq.actor(broker=broker, actor_name=PROCESS_OUTBOX, queue_name=DRAINING, throws=OperationalError)
def process_outbox() -> None:
    """Have the outbox drained by the threads of its destinations, until nothing is due."""
    running.dispatcher.dispatch()


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


@dramatiq.actor(broker=broker, actor_name=RESET_LOW_WATERMARKS, queue_name=MAINTENANCE, throws=OperationalError)
def reset_low_watermarks() -> None:
    """Repair the low watermarks that keep rows from being delivered, and look whether the routes have changed."""
    maintenance.reset_low_watermarks(running.app.db)
    maintenance.compare_routes(running.app.db, running.app.routes)
