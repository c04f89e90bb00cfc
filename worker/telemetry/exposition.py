"""The ports at which the worker and the scheduler serve their metrics."""

import threading
import time

import structlog

from domain.outbox.operations.status_cache import StatusCache
from domain.runtime import database, logs, metrics
from domain.runtime.metrics import CollectorRegistry
from domain.runtime.settings import Settings

#: A port that another process uses is tried again after this time: that process may be about to end.
TRY_AGAIN_SECONDS = 2.0

log = structlog.get_logger()


def serve_scheduler(settings: Settings) -> None:
    """Serve what this process counts, and the status of the destinations."""
    db = database.sessions(database.connect(settings, connections=1))
    registry = metrics.registry_of(readings=StatusCache(db).readings)
    _serve_in_background(registry, settings.host, settings.scheduler_metrics_port, "SCHEDULER_METRICS_PORT")


def serve_workers() -> None:
    """Serve what all processes of a worker count, from a thread."""
    settings = Settings.load()
    logs.configure(settings.log_level)
    _serve_in_background(metrics.registry_of(), settings.host, settings.worker_metrics_port, "WORKER_METRICS_PORT")


def _serve_in_background(registry: CollectorRegistry, host: str, port: int, variable: str) -> None:
    if port:
        threading.Thread(target=_serve, args=(registry, host, port, variable), name="metrics", daemon=True).start()


def _serve(registry: CollectorRegistry, host: str, port: int, variable: str) -> None:
    """Serve at a port as soon as it is free: two workers or two schedulers on one machine are allowed."""
    warned = False
    while True:
        try:
            metrics.serve(registry, host, port)
        except (OSError, RuntimeError) as error:
            # A process that has as many threads as it may gets a RuntimeError, and the port stays free.
            if not warned:
                advice = f"everything else works; set {variable} to a free port, or to 0 for none"
                log.warning("metrics.not_served", port=port, reason=str(error), advice=advice)
            warned = True
            time.sleep(TRY_AGAIN_SECONDS)
        else:
            return
