"""The clock: it only sends messages, so two of them are harmless."""

import signal
from collections.abc import Callable
from types import FrameType

import structlog
from apscheduler.schedulers.blocking import BlockingScheduler
from dramatiq import Broker, Message

from domain.runtime import telemetry
from domain.runtime.settings import Settings
from worker.broker import DOWN, DRAINS, ENOUGH, SWEEPS, connect
from worker.telemetry import exposition, metrics

#: How often each actor is rung, in seconds. Retries become due by the outbox's clock, so
#: this is also how late one can be.
EVERY = {"process_outbox": 1, "expire_reservations": 2, "prune": 300}

QUEUES = {"process_outbox": DRAINS, "expire_reservations": SWEEPS, "prune": SWEEPS}

log = structlog.get_logger()


def main() -> None:
    """Ring until SIGTERM or Ctrl-C."""
    settings = Settings.load()
    telemetry.configure(settings.log_level)
    exposition.show_scheduler(settings)
    broker, waiting = connect(settings.broker(), [])
    scheduler = BlockingScheduler()
    for actor, seconds in EVERY.items():
        scheduler.add_job(
            ring, "interval", args=[broker, waiting, actor], seconds=seconds, coalesce=True, misfire_grace_time=seconds
        )

    def stop(signum: int, frame: FrameType | None) -> None:
        scheduler.shutdown(wait=False)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    scheduler.start()


def ring(broker: Broker, waiting: Callable[[str], int], actor: str) -> None:
    """Send one wake-up, unless enough of them wait already."""
    try:
        if waiting(QUEUES[actor]) < ENOUGH:
            broker.enqueue(Message(queue_name=QUEUES[actor], actor_name=actor, args=(), kwargs={}, options={}))
            metrics.RINGS.labels(actor).inc()
    except DOWN as error:
        metrics.UNHEARD.labels(actor).inc()
        log.warning("scheduler.unheard", actor=actor, error=type(error).__name__)


if __name__ == "__main__":
    main()
