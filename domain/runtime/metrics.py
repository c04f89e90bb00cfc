"""Metrics: the one module that imports `prometheus_client`.

Each process counts by itself. Where `shared_metrics.share` was used before this module was imported, the
processes write to files instead, and `all_processes` adds them up.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from domain.runtime import shared_metrics

__all__ = [
    "CONTENT_TYPE_LATEST",
    "CollectorRegistry",
    "Counter",
    "Gauge",
    "Histogram",
    "Reading",
    "registry_of",
    "render",
    "serve",
]

# The time at which each counter was created: nobody asks for it, and it would double what is sent.
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A figure that is read from elsewhere whenever the metrics are asked for. `values` are by the label `destination`.

    Without the label, the one value has the key "".
    """

    name: str
    help: str
    values: Mapping[str, float]


def registry_of(*, readings: Callable[[], Sequence[Reading]] | None = None) -> CollectorRegistry:
    """Return what this process counts, or all processes that share their metrics, with further readings beside."""
    registry = CollectorRegistry()
    folder = os.environ.get(shared_metrics.VARIABLE)
    # A registry is collected from as a collector is, though it is not declared as one.
    registry.register(_AllProcesses(folder) if folder else cast(Collector, REGISTRY))
    if readings:
        registry.register(_Readings(readings))
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """Return the metrics in the text format of Prometheus."""
    return generate_latest(registry)


def serve(registry: CollectorRegistry, host: str, port: int) -> None:
    """Serve the metrics at a port, from threads of their own. Raises OSError if the port is taken."""
    start_http_server(port, host, registry)


class _AllProcesses(Collector):
    """The metrics that several processes have written, added up. Gauges of a process that has ended do not count."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files = MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for process in shared_metrics.ended_processes(self._folder):
            mark_process_dead(process, self._folder)  # type: ignore[no-untyped-call]
        added_up: Iterable[Metric] = self._files.collect()  # type: ignore[no-untyped-call]
        return added_up


class _Readings(Collector):
    def __init__(self, read: Callable[[], Sequence[Reading]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Name nothing: to learn the names, the registry would read the figures."""
        return ()

    def collect(self) -> Iterator[Metric]:
        for reading in self._read():
            labels = [] if "" in reading.values else ["destination"]
            gauge = GaugeMetricFamily(reading.name, reading.help, labels=labels)
            for label, value in reading.values.items():
                gauge.add_metric([label] if labels else [], value)
            yield gauge
