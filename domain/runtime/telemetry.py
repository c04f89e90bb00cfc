"""Logs: one operation, one event, as JSON lines or, on a terminal, for people. Traces, and where metrics add up."""

import logging
import os
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import structlog
from opentelemetry import trace
from structlog.tracebacks import ExceptionDictTransformer

from domain.runtime.settings import refuse_to_start

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter


def configure(level: str) -> None:
    """Send logs to standard error, so that standard output is left to what a process is for."""
    # Local variables of a traceback would be requests and rows: personal data, and a lot of it.
    tracebacks = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    render = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            tracebacks if not sys.stderr.isatty() else structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


#: A batch of deliveries has a link to each of its requests: as many as its largest batch has rows.
LINKS = 10_000

#: What was not sent to the collector by then is dropped: a process ends within 10 s, whatever a collector does.
FLUSH_SECONDS = 2.0

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def wants_tracing() -> bool:
    """Tell whether the environment names somewhere to send traces. The variables are OpenTelemetry's own."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
    return exporter == "console" or (exporter != "none" and any(map(os.environ.get, ENDPOINTS)))


def start_tracing(service: str) -> None:
    """Send the traces of this process to where the environment says, or nowhere.

    Call it in the process itself, not in the one that forks it: what sends is a thread. Ends
    the process if what it takes is not installed.
    """
    if wants_tracing() and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(_tracer_provider(service))


def stop_tracing() -> None:
    """Send what has not been sent yet, if that takes no longer than FLUSH_SECONDS."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown:
        stopping = threading.Thread(target=shutdown, name="tracing", daemon=True)
        stopping.start()
        stopping.join(FLUSH_SECONDS)


def _tracer_provider(service: str) -> "TracerProvider":
    insist_on_tracing()
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    os.environ.setdefault("OTEL_SPAN_LINK_COUNT_LIMIT", str(LINKS))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return provider


def insist_on_tracing() -> None:
    """End the process if traces are wanted and what sends them is not installed."""
    if not wants_tracing():
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ModuleNotFoundError as error:
        named = next((name for name in ENDPOINTS if name in os.environ), "OTEL_TRACES_EXPORTER")
        refuse_to_start(
            f"{named}: to send traces takes the package {error.name!r}, and it is not installed."
            " Run: bin/install tracing (that is: pip install -e '.[tracing]')"
        )


def _exporter() -> "SpanExporter":
    if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


#: Names the folder that the metrics of several processes add up in. It has to be set before their library is imported.
SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def sharing_metrics() -> Iterator[None]:
    """Have the processes that start meanwhile add their metrics up, from 0."""
    with TemporaryDirectory(prefix="holdfast-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[SHARED_METRICS] = folder
        try:
            yield
        finally:
            del os.environ[SHARED_METRICS]


def ended_processes(folder: str) -> Collection[int]:
    """Return the processes that have written metrics there and run no more."""
    writers = {int(file.stem.rpartition("_")[2]) for file in Path(folder).glob("*.db")}
    return {process for process in writers if not _runs(process)}


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
