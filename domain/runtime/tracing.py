"""Traces: where the spans of this process are sent."""

import os
import sys
import threading
from typing import TYPE_CHECKING

from opentelemetry import trace

from domain.runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

#: A batch of deliveries has a link to each of its requests: as many as its largest batch has rows.
LINKS = 10_000

#: Spans that the collector has not taken by then are dropped: a process ends within 10 s, whatever a collector does.
FLUSH_SECONDS = 2.0

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def is_wanted() -> bool:
    """Return whether the environment names somewhere to send traces. The variables are OpenTelemetry's own."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
    return exporter == "console" or (exporter != "none" and any(map(os.environ.get, ENDPOINTS)))


def start(service: str) -> None:
    """Send the traces of this process to where the environment says, or nowhere.

    Call it in the process itself, not in the one that forks it: a thread sends them. Raises ConfigurationError
    if a package that this needs is not installed.
    """
    if is_wanted() and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(_tracer_provider(service))


def stop() -> None:
    """Send the remaining spans, within FLUSH_SECONDS."""
    shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if shutdown:
        stopping = threading.Thread(target=shutdown, name="tracing", daemon=True)
        stopping.start()
        stopping.join(FLUSH_SECONDS)


def _tracer_provider(service: str) -> "TracerProvider":
    require()
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    os.environ.setdefault("OTEL_SPAN_LINK_COUNT_LIMIT", str(LINKS))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return provider


def require() -> None:
    """Raise ConfigurationError if traces are wanted and the packages that send them are not installed."""
    if not is_wanted():
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ModuleNotFoundError as error:
        named = next((name for name in ENDPOINTS if name in os.environ), "OTEL_TRACES_EXPORTER")
        raise ConfigurationError(
            f"{named}: sending traces needs the package {error.name!r}, which is not installed."
            " Run: bin/install tracing (that is: pip install -e '.[tracing]')"
        ) from error


def _exporter() -> "SpanExporter":
    if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
