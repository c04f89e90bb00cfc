"""What the API counts, and `GET /metrics`. HELP says what to alert on."""

import os
from collections.abc import Iterable, Iterator
from functools import cache
from typing import cast

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.types import Message, Scope
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from domain.outbox.operations.status_cache import FIGURES, UP, Watch
from domain.runtime import telemetry

# Nobody asks when a counter was made, and that would be told beside each.
disable_created_metrics()  # type: ignore[no-untyped-call]

REQUESTS = Counter(
    "holdfast_requests",
    "Answers by operation and status. Alert on 500, and on 503 that go on.",
    ["operation", "status"],
)
SET_SIZE = Histogram(
    "holdfast_group_commit_set_size",
    "Requests committed together, at most 256. Near 256 at all times the writer is the limit: add processes.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
SET_SECONDS = Histogram(
    "holdfast_group_commit_seconds",
    "How long it took to decide and commit a set. Alert if the 99th percentile is above 1 s: locks or disk are slow.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
QUEUED = Gauge(
    "holdfast_group_commit_queue",
    "Requests that wait for the set before theirs. Alert when it nears QUEUE_LIMIT, beyond which the answer is 503.",
    multiprocess_mode="livesum",
)
BUSY = Counter("holdfast_group_commit_busy", "Requests answered 503 as the queue was full. Alert on any increase.")
UNHEARD = Counter(
    "holdfast_doorbell_unheard",
    "Rings that no broker took: deliveries are later for it. Alert if it grows for a minute.",
)


def show(watch: Watch) -> HTTPRouteHandler:
    """Return the door that shows what all API processes behind this port count, and how the outbox stands."""
    registry = CollectorRegistry()
    registry.register(_counted())
    registry.register(Outbox(watch))

    @get("/metrics", sync_to_thread=True, include_in_schema=False)
    def metrics() -> Response[bytes]:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return metrics


def _counted() -> Collector:
    folder = os.environ.get(telemetry.SHARED_METRICS)
    # A registry is collected from as a collector is, though it does not call itself one.
    return Processes(folder) if folder else cast(Collector, REGISTRY)


class Processes(Collector):
    """What several processes have written, added up. One that was killed has nothing queued any more."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files = MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for process in telemetry.ended_processes(self._folder):
            mark_process_dead(process, self._folder)  # type: ignore[no-untyped-call]
        added_up: Iterable[Metric] = self._files.collect()  # type: ignore[no-untyped-call]
        return added_up


class Outbox(Collector):
    """How the outbox stands in the database, by destination."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        seen = self._watch.seen()
        yield GaugeMetricFamily("holdfast_outbox_up", UP, value=seen is not None)
        for figure, meaning in FIGURES.items():
            gauge = GaugeMetricFamily(f"holdfast_outbox_{figure}", meaning, labels=["destination"])
            for one in seen or ():
                gauge.add_metric([one.name], getattr(one, figure))
            yield gauge


async def count(message: Message, scope: Scope) -> None:
    """Count an answer when it begins to be sent."""
    if message["type"] == "http.response.start":
        door = scope.get("route_handler")
        _requests(door.handler_name if door else "none", message["status"]).inc()


@cache
def _requests(operation: str, status: int) -> Counter:
    return REQUESTS.labels(operation, status)
