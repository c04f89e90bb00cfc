"""Traces: a span for each request that changes something, which the deliveries of its events link to."""

from typing import cast

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACER = trace.get_tracer("holdfast.api")

_CONTEXT = TraceContextTextMapPropagator()

#: Methods that change nothing.
READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Tracing(ASGIMiddleware):
    """Continues the trace that a request names, or begins one. The application has it only if traces are wanted."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        request = cast(HTTPScope, scope)
        if request["method"] in READS:
            await next_app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with TRACER.start_as_current_span(
            scope["route_handler"].handler_name,
            context=_CONTEXT.extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": request["method"], "url.path": request["path"]},
        ) as span:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            await next_app(scope, receive, answer)


def current() -> str | None:
    """Return the `traceparent` of the current span, or None if there is none."""
    carrier: dict[str, str] = {}
    _CONTEXT.inject(carrier)
    return carrier.get("traceparent")
