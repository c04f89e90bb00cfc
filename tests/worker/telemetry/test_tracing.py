"""Traces: the events of a request carry its span, and the span of their delivery links to it."""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from sqlalchemy import select, update

from domain.outbox import Delivered, Outcome, Row
from domain.outbox.table import outbox as table
from domain.runtime import tracing as process_tracing
from domain.runtime.errors import ConfigurationError
from tests.conftest import OpenRelay
from tests.support.api_process import serving
from tests.support.builders import Db, a_hold, an_item
from tests.support.http_server import Server, a_server
from tests.support.outbox import SHOP, FakeDestination, an_aggregate, recorded_for, with_shop
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from tests.worker.telemetry.test_exposition import running
from worker.formats.envelope import trace
from worker.telemetry import tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans that the worker's code records in this process from now on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "TRACER", provider.get_tracer("test"))
    return exporter


def traced(db: Db, *traceparents: str | None) -> None:
    """Record an event for each, as if its request had this context."""
    for row_id, traceparent in zip(
        recorded_for(db, *(an_aggregate() for _ in traceparents)), traceparents, strict=True
    ):
        headers = {"traceparent": traceparent} if traceparent else {}
        with db.begin() as session:
            session.execute(update(table).where(table.c.id == row_id).values(headers=headers))


def test_the_span_of_a_delivery_links_to_each_request_once(relay_to: OpenRelay, spans: InMemorySpanExporter) -> None:
    relay = relay_to(FakeDestination())
    traced(relay.db, PARENT, OTHER, PARENT, None, "garbled")

    relay.run()

    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == (f"deliver {SHOP}", SpanKind.PRODUCER)
    links = {(one.context.trace_id, one.context.span_id) for one in span.links}
    assert links == {(int(TRACE, 16), int("b7ad6b7169203331", 16)), (int("1" * 32, 16), int("2" * 16, 16))}
    assert len(span.links) == 2
    assert span.attributes == {"messaging.destination.name": SHOP, "messaging.batch.message_count": 5}


def test_a_consumer_gets_the_trace_context_of_the_request(relay_to: OpenRelay, spans: InMemorySpanExporter) -> None:
    sent: list[Mapping[str, str]] = []

    def note(row: Row) -> Outcome:
        sent.append(trace(row))
        return Delivered()

    relay = relay_to(FakeDestination(note))
    traced(relay.db, PARENT)

    relay.run()

    assert sent == [{"traceparent": PARENT}]


def test_without_tracing_everything_is_delivered_all_the_same(relay_to: OpenRelay) -> None:
    relay = relay_to(FakeDestination())
    traced(relay.db, PARENT)

    assert relay.run().processed == 1


@pytest.fixture
def collector() -> Iterator[Server]:
    with a_server() as server:
        yield server


def collected(server: Server) -> list[Any]:
    """Return the spans that a collector has been sent so far."""
    spans = []
    for request in server.requests:
        trace = ExportTraceServiceRequest.FromString(request.body)
        for resource in trace.resource_spans:
            spans += [span for scope in resource.scope_spans for span in scope.spans]
    return spans


def environment(server: Server) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


@pytest.mark.slow
def test_a_request_has_a_span_and_its_events_carry_it(db: Db, collector: Server) -> None:
    item, hold = an_item(db), a_hold(db, an_item(db))
    with serving(**environment(collector)) as served:
        ours, other = {"traceparent": PARENT}, {"traceparent": OTHER}
        served.client.post("/reservations", json={"item_id": item.id, "quantity": 1}, headers=ours)
        served.client.post(f"/reservations/{hold.id}/cancel", headers=ours)
        served.client.post("/reservations", json={"item_id": item.id, "quantity": 10**9}, headers=other)
        served.client.get("/items", headers=other)
        wait_until("three spans were sent", lambda: len(collected(collector)) >= 3)

    spans = {span.name if span.trace_id.hex() == TRACE else "refused": span for span in collected(collector)}
    assert set(spans) == {"make_reservation", "cancel_reservation", "refused"}
    assert {span.parent_span_id.hex() for name, span in spans.items() if name != "refused"} == {"b7ad6b7169203331"}
    statuses = {attribute.value.int_value for one in spans.values() for attribute in one.attributes} - {0}
    assert statuses == {200, 201, 409}
    made = f"00-{TRACE}-{spans['make_reservation'].span_id.hex()}-01"
    cancelled = f"00-{TRACE}-{spans['cancel_reservation'].span_id.hex()}-01"
    assert recorded(db, "booking.created") >= {made}
    assert recorded(db, "booking.cancelled") == recorded(db, "booking.status_changed") == {cancelled}


def recorded(db: Db, event: str) -> set[str]:
    with db.begin() as session:
        headers = session.execute(select(table.c.headers).where(table.c.type == event)).scalars()
        return {one["traceparent"] for one in headers if one}


@pytest.mark.slow
def test_a_worker_process_sends_its_spans_at_the_latest_when_it_ends(
    db: Db, collector: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    routes = tmp_path_factory.mktemp("routes") / "routes.toml"
    routes.write_text('[[destination]]\nname = "shop"\nurl = "null:"\n')
    shop = with_shop(db)
    traced(shop, PARENT)
    quiet = environment(collector) | {"OTEL_BSP_SCHEDULE_DELAY": "600000", "HOLDFAST_ROUTES": str(routes)}
    quiet |= {"WORKER_METRICS_PORT": "0", "SCHEDULER_METRICS_PORT": "0"}

    with running("worker", "--processes", "1", **quiet), running("scheduler"):
        wait_until("it is delivered", lambda: is_delivered(shop))
        assert collected(collector) == []

    (span,) = collected(collector)
    assert span.name == "deliver shop"
    assert [link.trace_id.hex() for link in span.links] == [TRACE]


def is_delivered(db: Db) -> bool:
    with db.begin() as session:
        return session.execute(select(table.c.processed_at)).scalar_one() is not None


@pytest.mark.slow
def test_on_the_console_a_span_is_a_line_of_the_log(db: Db) -> None:
    item = an_item(db)
    with serving(OTEL_TRACES_EXPORTER="console", OTEL_BSP_SCHEDULE_DELAY="100") as served:
        body = {"item_id": item.id, "quantity": 1}
        served.client.post("/reservations", json=body, headers={"traceparent": PARENT}).raise_for_status()
        wait_until("the span is shown", lambda: "make_reservation" in served.log.read_text())
        (line,) = [line for line in served.log.read_text().splitlines() if "make_reservation" in line]

    assert json.loads(line)["context"]["trace_id"] == f"0x{TRACE}"


@pytest.mark.slow
def test_a_collector_that_is_down_harms_no_request_and_no_exit(db: Db) -> None:
    item = an_item(db)
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with serving(**nowhere) as served:
        body = {"item_id": item.id, "quantity": 1}
        answers = [httpx.post(f"{served.url}/reservations", json=body, timeout=PATIENCE_SECONDS) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [201] * 3
    assert served.process.returncode == 0


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"), ("OTEL_TRACES_EXPORTER", "console")]
)
def test_without_the_extra_a_process_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(ConfigurationError) as error:
        process_tracing.require()

    message = str(error.value)
    assert variable in message and "pip install -e '.[tracing]'" in message


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_traces_go_nowhere_unless_the_environment_says_where(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert not process_tracing.is_wanted()
