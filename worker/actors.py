"""What a wake-up sets going. `dramatiq worker.actors:broker` runs them."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from types import FrameType

import dramatiq
import structlog
from dramatiq import Broker, Middleware, Worker
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from domain.runtime.settings import Settings
from worker import maintenance
from worker.app import App, open_app
from worker.broker import DOWN, DRAINS, SWEEPS, connect
from worker.relay.relay import Tally

#: A drain that goes on for longer makes room for the other actors, and rings for itself.
RUN_SECONDS = 5.0

#: A drain that has been busy for longer asks for others to join in, once.
ALONE_SECONDS = 0.1

#: Four drains at work, which Redis counts twice each: another would take the processor from them and from PostgreSQL.
#: Where destinations are what is slow, each ring of the API and of the scheduler still brings one more.
MANY = 8

#: A worker that came up before its database begins this long after it at the latest.
OPEN_AGAIN_SECONDS = 1.0

#: How the names of threads begin that may be waiting for an answer.
CALLING = ("calls", "sqs")

log = structlog.get_logger()


class Running(Middleware):
    """Opens the app when the worker process starts and closes it when it has stopped."""

    app: App

    @property
    def actor_options(self) -> set[str]:
        """Know `throws`: errors that are logged in a line, as they pass by themselves."""
        return {"throws"}

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        self.app = _open(threads=worker.worker_threads, ended=_end_once())

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self.app.drain.stopping.set()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        try:
            self.app.close()
        finally:
            # What is still being called is given back and goes out again; it may not hold up the exit.
            if any(thread.name.startswith(CALLING) for thread in threading.enumerate()):
                os._exit(0)


def _end_once() -> threading.Event:
    """Heed the first SIGTERM only. Return what it sets.

    Who ends a whole process group (systemd and honcho do) tells this process as well as
    Dramatiq's parent, which passes it on; and a second one makes Dramatiq drop everything.
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
    """Open the app, as soon as there is a migrated database.

    Dramatiq would go on without what fails here, and answer every ring with an error for ever.
    """
    while True:
        try:
            return open_app(settings, threads=threads)
        except SQLAlchemyError as error:
            log.warning("worker.waits", error=str(error).splitlines()[0])
        if ended.wait(OPEN_AGAIN_SECONDS):
            sys.exit(0)


settings = Settings.load()
running = Running()
broker, waiting = connect(settings.broker(), [running])


@dramatiq.actor(broker=broker, queue_name=DRAINS, throws=OperationalError)
def process_outbox() -> None:
    """Relay the outbox until it is dry or others should have a turn. The longer it takes, the more threads do it."""
    begun, is_alone = time.monotonic(), True

    def ask_for_help(_: Tally) -> None:
        nonlocal is_alone
        if is_alone and time.monotonic() - begun > ALONE_SECONDS:
            is_alone = False
            _ring_once()

    running.app.drain.run(until=begun + RUN_SECONDS, progress=ask_for_help)
    if time.monotonic() >= begun + RUN_SECONDS:
        process_outbox.send()


def _ring_once() -> None:
    """Ring, unless many are at work. While the broker is down nobody would hear it, and the scheduler rings after."""
    with suppress(*DOWN):
        if waiting(DRAINS) < MANY:
            process_outbox.send()


@dramatiq.actor(broker=broker, queue_name=SWEEPS, throws=OperationalError)
def expire_reservations() -> None:
    """Expire the overdue holds."""
    maintenance.expire(running.app.db, running.app.drain.stopping)


@dramatiq.actor(broker=broker, queue_name=SWEEPS, throws=OperationalError)
def prune() -> None:
    """Delete what has been kept long enough."""
    retention = timedelta(days=settings.outbox_retention_days)
    maintenance.prune(running.app.db, running.app.drain.stopping, outbox_retention=retention)
