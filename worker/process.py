"""One process of a worker: Dramatiq's threads, which run the actors, until the process has to end."""

import os
import sys
import time
from collections.abc import Callable

from domain.runtime import startup
from domain.runtime.errors import ConfigurationError
from worker import ending

#: How often a thread without work looks whether it has to end, in milliseconds. A message wakes it at once.
LOOK_MILLISECONDS = 200

#: After so long, a thread that computes lets others compute that have got an answer, of PostgreSQL or of a server. They
#: wait for each of many answers in turn: by Python's default of 5 ms, a busy worker would spend most of its time so.
SWITCH_SECONDS = 0.0005


def work(threads: int) -> None:
    """Deliver and maintain with so many threads, until the process has to end. Raises ConfigurationError."""
    from dramatiq import Worker

    from worker.actors import broker, running
    from worker.ordering import calling_threads
    from worker.relay.late_answers import GRACE_SECONDS

    sys.setswitchinterval(SWITCH_SECONDS)
    running.open(threads)
    worker = Worker(broker, worker_threads=threads, worker_timeout=LOOK_MILLISECONDS)
    worker.start()
    ending.wait()
    # Actors and calls that have begun have one time to end.
    ends_at = time.monotonic() + GRACE_SECONDS
    worker.stop(timeout=int(GRACE_SECONDS * 1_000))
    running.close(max(0.0, ends_at - time.monotonic()))
    broker.close()
    # The lanes of calls that have not ended are released; the calls must not delay the exit.
    if calling_threads.any_alive():
        os._exit(0)


def serve_metrics() -> None:
    """Serve what all processes of this worker count, until the process has to end."""
    from worker.telemetry.exposition import serve_workers

    serve_workers()
    ending.wait()


def run(job: Callable[[], None]) -> None:
    """Run the job of a process that was forked for it. Exits with 2 if the configuration can't be used."""
    ending.begin()
    try:
        job()
    except ConfigurationError as error:
        sys.exit(startup.report(error))
