"""The spans of deliveries: each batch has one, with a link to every request that caused its events."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from domain.outbox import Row

TRACER = trace.get_tracer("holdfast.worker")

_CONTEXT = TraceContextTextMapPropagator()


@contextmanager
def delivering(destination: str, rows: Sequence[Row]) -> Iterator[None]:
    """Trace the delivery of a batch. Without tracing it costs a few microseconds a batch.

    The trace context that a row carries to its consumer is still the one of the request, so consumers join that trace.
    """
    with TRACER.start_as_current_span(f"deliver {destination}", kind=SpanKind.PRODUCER) as span:
        if span.is_recording():
            span.set_attributes({"messaging.destination.name": destination, "messaging.batch.message_count": len(rows)})
            _link(span, rows)
        yield


def _link(span: Span, rows: Sequence[Row]) -> None:
    """Link the span to each request once, however many of its events are in the batch."""
    recorded = {json.loads(row.headers).get("traceparent") for row in rows if row.headers != "{}"}
    for traceparent in sorted(filter(None, recorded)):
        context = trace.get_current_span(_CONTEXT.extract({"traceparent": traceparent})).get_span_context()
        if context.is_valid:
            span.add_link(context)
