"""Where the metrics of worker and scheduler are shown: each at a port of its own."""

import os
import threading
import time
from collections.abc import Iterable, Iterator

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from domain.outbox.operations.status_cache import FIGURES, UP, StatusCache
from domain.runtime import database, telemetry
from domain.runtime.settings import Settings

#: A port that another process has is tried again after so many seconds: that one may be on its way out.
TRY_AGAIN_SECONDS = 2.0

log = structlog.get_logger()


def show_scheduler(settings: Settings) -> None:
    """Show what this process counts, and how the outbox stands."""
    db = database.sessions(database.connect(settings, connections=1))
    REGISTRY.register(Outbox(StatusCache(db)))
    _show(REGISTRY, settings.host, settings.scheduler_metrics_port, "SCHEDULER_METRICS_PORT")


def show_workers() -> None:
    """Show what all processes of a worker count, until their parent ends. Dramatiq forks this one beside them."""
    parent = os.getppid()
    settings = Settings.load()
    telemetry.configure(settings.log_level)
    registry = CollectorRegistry()
    registry.register(Workers(os.environ[telemetry.SHARED_METRICS]))
    _show(registry, settings.host, settings.worker_metrics_port, "WORKER_METRICS_PORT")
    while os.getppid() == parent:
        time.sleep(TRY_AGAIN_SECONDS)


class Outbox(Collector):
    """How the outbox stands in the database, by destination."""

    def __init__(self, watch: StatusCache) -> None:
        self._watch = watch

    def describe(self) -> Iterable[Metric]:
        """Name nothing: to learn the names, the registry would have it look."""
        return ()

    def collect(self) -> Iterator[Metric]:
        seen = self._watch.seen()
        yield GaugeMetricFamily("holdfast_outbox_up", UP, value=seen is not None)
        for figure, meaning in FIGURES.items():
            gauge = GaugeMetricFamily(f"holdfast_outbox_{figure}", meaning, labels=["destination"])
            for one in seen or ():
                gauge.add_metric([one.name], getattr(one, figure))
            yield gauge


class Workers(Collector):
    """What several processes have written, added up. One that was killed holds no lane any more."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files = MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for process in telemetry.ended_processes(self._folder):
            mark_process_dead(process, self._folder)  # type: ignore[no-untyped-call]
        added_up: Iterable[Metric] = self._files.collect()  # type: ignore[no-untyped-call]
        return added_up


def _show(registry: CollectorRegistry, host: str, port: int, variable: str) -> None:
    if port:
        threading.Thread(target=_serve, args=(registry, host, port, variable), name="metrics", daemon=True).start()


def _serve(registry: CollectorRegistry, host: str, port: int, variable: str) -> None:
    """Serve at a port as soon as it is free: two workers or two schedulers on one machine are no mistake."""
    refused = False
    while True:
        try:
            start_http_server(port, host, registry)
        except OSError as error:
            if not refused:
                advice = f"everything else goes on; set {variable} to a free port, or to 0 for none"
                log.warning("metrics.not_shown", port=port, reason=error.strerror, advice=advice)
            refused = True
            time.sleep(TRY_AGAIN_SECONDS)
        else:
            return
