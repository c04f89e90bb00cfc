"""`sqs://`, the requests: ten messages a call, within the limits of SQS, to the queue that the URL names."""

import json
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from threading import Barrier, Event
from typing import Any

import pytest
from moto.sqs.models import sqs_backends

from domain.outbox import Delivered, Failed, NotSent, Rejected, Route
from domain.runtime.errors import ConfigurationError
from tests.conformance.sqs import ACCOUNT, REGION, FifoHarness, SqsHarness
from tests.support.http_server import Server
from tests.worker.sinks.sqs import (
    TIMEOUT_SECONDS,
    a_row,
    a_sink,
    an_endpoint,
    calls,
    outcomes_of,
    some_rows,
    taking_all,
)
from worker.formats import Message
from worker.sinks.sqs.messages import LIMIT_BYTES, Entry, chunks, entry_of
from worker.sinks.sqs.sink import region_of

#: To make a client of boto3 takes longer than most tests.
pytestmark = pytest.mark.slow


@pytest.fixture
def sqs() -> Iterator[SqsHarness]:
    harness = SqsHarness()
    yield harness
    harness.close()


@pytest.fixture
def fifo() -> Iterator[FifoHarness]:
    harness = FifoHarness()
    yield harness
    harness.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with an_endpoint(monkeypatch) as server:
        yield server


def messages(harness: SqsHarness) -> Sequence[Any]:
    return list(sqs_backends[ACCOUNT][REGION].queues[harness.url.rpartition("/")[2]].messages)


def test_a_message_has_the_event_its_type_and_the_headers_of_the_request_behind_it(sqs: SqsHarness) -> None:
    row = a_row(traceparent="00-1-2-01", correlation_id="request-1")

    assert outcomes_of([row], sqs.url) == [Delivered()]

    (message,) = messages(sqs)
    assert json.loads(message.body)["event_id"] == str(row.event_id)
    attributes = {name: attribute["StringValue"] for name, attribute in message.message_attributes.items()}
    assert attributes == {"EventType": "booking.created", "traceparent": "00-1-2-01", "X-Request-Id": "request-1"}
    assert (message.group_id, message.deduplication_id) == (None, None)


def test_on_a_fifo_queue_the_group_is_the_aggregate_and_a_retry_has_the_same_id(fifo: FifoHarness) -> None:
    row = a_row()

    assert outcomes_of([row], fifo.url) == outcomes_of([row], fifo.url) == [Delivered()]

    (message,) = messages(fifo)
    assert (message.group_id, message.deduplication_id) == (str(row.aggregate_id), str(row.event_id))


def test_sqs_does_not_drop_a_replay_and_drops_the_retry_of_a_replay(fifo: FifoHarness) -> None:
    row = a_row()
    replays = [row._replace(headers=json.dumps({"replayed": at})) for at in ("2030-01-01T12:00:00Z", "later today")]

    for one in (row, *replays, *replays):
        assert outcomes_of([one], fifo.url) == [Delivered()]

    assert [json.loads(message.body)["event_id"] for message in messages(fifo)] == [str(row.event_id)] * 3


def test_the_id_of_a_request_can_not_make_an_event_look_like_a_replay(fifo: FifoHarness) -> None:
    row = a_row(correlation_id="replayed")

    assert outcomes_of([row], fifo.url) == [Delivered()]

    (message,) = messages(fifo)
    assert message.deduplication_id == str(row.event_id)


def test_a_call_has_ten_messages_and_several_calls_run_at_once(server: Server) -> None:
    together = Barrier(3)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        together.wait(timeout=TIMEOUT_SECONDS)
        taking_all(handler)

    server.answer = answer

    assert outcomes_of(some_rows(25), concurrency=3) == [Delivered()] * 25
    assert sorted(map(len, calls(server))) == [5, 10, 10]


def test_no_more_calls_run_at_once_than_the_route_allows(server: Server) -> None:
    server.answer = taking_all

    assert outcomes_of(some_rows(100), concurrency=2) == [Delivered()] * 100
    assert len(server.connections) <= 2


def test_a_call_has_no_more_bytes_than_sqs_takes() -> None:
    sizes = [100_000, 100_000, 100_000, LIMIT_BYTES, 1, LIMIT_BYTES - 1]

    found = list(chunks(Entry(number, {}, size) for number, size in enumerate(sizes)))

    assert [[entry.size for entry in chunk] for chunk in found] == [
        [100_000, 100_000],
        [100_000],
        [LIMIT_BYTES],
        [1, LIMIT_BYTES - 1],
    ]


def test_the_size_of_a_message_is_in_bytes_and_includes_its_attributes() -> None:
    row, attributes = a_row(), {"note": "Zoë"}
    around = len("EventTypeStringbooking.created") + len("noteStringZoë".encode())
    largest = "é" * ((LIMIT_BYTES - around) // 2)

    fits = entry_of(row, Message(largest, attributes=attributes), is_fifo=False)
    too_large = entry_of(row, Message(largest + "éé", attributes=attributes), is_fifo=False)

    assert isinstance(fits, Entry) and LIMIT_BYTES - 1 <= fits.size <= LIMIT_BYTES
    assert isinstance(too_large, Rejected)


def test_a_message_that_is_too_large_is_rejected_without_a_call_and_the_others_are_delivered(sqs: SqsHarness) -> None:
    large = a_row(2, payload=json.dumps({"note": "x" * LIMIT_BYTES}))

    outcomes = outcomes_of([a_row(1), large, a_row(3)], sqs.url)

    assert outcomes[0] == outcomes[2] == Delivered()
    assert isinstance(outcomes[1], Rejected)
    assert "262,374 bytes" in outcomes[1].error and "takes 262,144" in outcomes[1].error
    assert len(sqs.arrived()) == 2


def test_empty_attributes_are_omitted_and_there_are_ten_at_most() -> None:
    attributes = {"empty": ""} | {f"name{number}": "value" for number in range(12)}

    entry = entry_of(a_row(), Message("{}", attributes=attributes), is_fifo=False)

    assert isinstance(entry, Entry)
    assert list(entry.fields["MessageAttributes"]) == [f"name{number}" for number in range(10)]


def test_a_format_may_set_the_attribute_of_the_type_itself() -> None:
    entry = entry_of(a_row(), Message("{}", attributes={"EventType": "BookingCreated"}), is_fifo=False)

    assert isinstance(entry, Entry)
    assert entry.fields["MessageAttributes"]["EventType"]["StringValue"] == "BookingCreated"


def test_characters_that_sqs_refuses_are_escaped_in_a_body_and_replaced_in_an_attribute() -> None:
    note = "Zoë \uffff\ufffe 😀"
    body = json.dumps({"note": note}, ensure_ascii=False)

    entry = entry_of(a_row(), Message(body, attributes={"id": "a\uffff\x01b"}), is_fifo=False)

    assert isinstance(entry, Entry)
    assert json.loads(entry.fields["MessageBody"]) == {"note": note}
    assert "\uffff" not in entry.fields["MessageBody"] and "😀" in entry.fields["MessageBody"]
    assert entry.fields["MessageAttributes"]["id"]["StringValue"] == "a\ufffd\ufffdb"


def test_a_row_that_can_not_be_written_fails_alone(sqs: SqsHarness) -> None:
    bad = a_row(2)._replace(headers="no JSON")

    outcomes = outcomes_of([a_row(1), bad, a_row(3)], sqs.url)

    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered]


def test_requests_go_through_the_proxy_of_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://sqs.example.test")
    monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/hook").replace("//", "//me:secret@"))
    server.answer = taking_all

    assert outcomes_of([a_row()]) == [Delivered()]
    assert server.requests[0].path == "http://sqs.example.test/"
    assert server.requests[0].headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"


def test_no_call_begins_when_the_process_stops(server: Server) -> None:
    stopping = Event()
    stopping.set()

    assert outcomes_of([a_row()], stopping=stopping) == [NotSent()]
    assert server.requests == []


def test_requests_are_signed_for_the_region_of_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-southeast-2")
    server.answer = taking_all

    outcomes_of([a_row()])

    assert "/ap-southeast-2/sqs/" in server.requests[0].headers["authorization"]


@pytest.mark.parametrize(
    ("host", "environment", "region"),
    [
        ("sqs.eu-west-1.amazonaws.com", {}, "eu-west-1"),
        ("sqs.cn-north-1.amazonaws.com.cn", {}, "cn-north-1"),
        ("sqs.us-gov-west-1.amazonaws.com", {}, "us-gov-west-1"),
        ("vpce-0a1b-xyz.sqs.eu-west-1.vpce.amazonaws.com", {}, "eu-west-1"),
        ("queues.example.com", {"AWS_REGION": "eu-west-3"}, "eu-west-3"),
        # The worker runs in another region than the queue.
        ("sqs.eu-west-1.amazonaws.com", {"AWS_REGION": "us-east-1"}, "eu-west-1"),
        # No request goes to the host of the queue.
        ("sqs.eu-west-1.amazonaws.com", {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "http://x"}, "us-east-1"),
        ("sqs.eu-west-1.amazonaws.com", {"AWS_ENDPOINT_URL_SQS": "http://x"}, "eu-west-1"),
    ],
)
def test_the_region_is_that_of_the_environment_or_of_the_host(
    monkeypatch: pytest.MonkeyPatch, host: str, environment: Mapping[str, str], region: str
) -> None:
    for name in ("AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert region_of(Route(name="queue", url=f"sqs://{host}/{ACCOUNT}/bookings")) == region


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqs://queues.example.com/1/bookings", "Set AWS_REGION"),
        ("sqs://", "names no queue"),
        ("sqs://sqs.eu-west-1.amazonaws.com", "names no queue"),
        ("sqs://sqs.eu-west-1.amazonaws.com/1/", "names no queue"),
        ("sqs://sqs.eu-west-1.amazonaws.com/1/two words", "names no queue"),
        ("sqs://sqs.eu-west-1.amazonaws.com/1/bookings?delay=5", "no options"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)

    with pytest.raises(ConfigurationError) as error:
        a_sink(url)

    message = str(error.value)
    assert message.startswith("HOLDFAST_ROUTES: destination 'queue': ") and reason in message
