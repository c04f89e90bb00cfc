"""The scheduler: it sends wake-ups by the clock and does nothing else, so two of them are harmless."""

import signal
from collections.abc import Callable
from functools import partial

import rich_click as click
import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from dramatiq import Broker, Message

from domain.runtime import logs, startup
from domain.runtime.settings import Settings
from domain.runtime.wakeups import (
    ENOUGH_WAITING,
    EXPIRE_RESERVATIONS,
    PROCESS_OUTBOX,
    PRUNE,
    QUEUES,
    RESET_LOW_WATERMARKS,
    SEAL_AUDIT,
)
from worker.broker import DOWN, connect
from worker.commands.command_line import DONE, Command, run
from worker.telemetry import exposition, metrics

#: The time between two wake-ups of each actor, in seconds. Retries become due by the outbox's clock, so
#: a retry is late by this time at most.
EVERY = {PROCESS_OUTBOX: 1, EXPIRE_RESERVATIONS: 2, PRUNE: 5, SEAL_AUDIT: 5, RESET_LOW_WATERMARKS: 300}

STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})

log = structlog.get_logger()


@click.command(
    cls=Command, name="bin/scheduler", examples=["bin/scheduler"], exit_codes={DONE: "stopped by SIGTERM or Ctrl-C"}
)
def main() -> None:
    """Send wake-ups by the clock, until SIGTERM or Ctrl-C. Two schedulers are harmless."""
    settings = Settings.load()
    logs.configure(settings.log_level)
    # Blocked in every thread, and taken by this one at the end: a handler could come before the scheduler runs.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    exposition.serve_scheduler(settings)
    broker, waiting = connect(settings.broker(), [])
    scheduler = BackgroundScheduler()
    for actor, seconds in EVERY.items():
        scheduler.add_job(
            wake, "interval", args=[broker, waiting, actor], seconds=seconds, coalesce=True, misfire_grace_time=seconds
        )
    scheduler.start()
    signal.sigwait(STOPPING)
    scheduler.shutdown(wait=False)


def wake(broker: Broker, waiting: Callable[[str], int], actor: str) -> None:
    """Send one wake-up, unless enough of them wait already."""
    try:
        if waiting(QUEUES[actor]) < ENOUGH_WAITING:
            broker.enqueue(Message(queue_name=QUEUES[actor], actor_name=actor, args=(), kwargs={}, options={}))
            metrics.WAKEUPS_SENT.labels(actor).inc()
    except DOWN as error:
        metrics.WAKEUPS_FAILED.labels(actor).inc()
        log.warning("scheduler.wakeup_failed", actor=actor, error=type(error).__name__)


if __name__ == "__main__":
    startup.run(partial(run, main))
