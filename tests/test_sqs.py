"""Amazon SQS: ten messages a call and no byte too many, and what each of its answers means for a row."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from threading import Barrier, Event
from typing import Any
from uuid import uuid4

import pytest
from moto.sqs.models import sqs_backends

from domain.outbox import Delivered, Failed, Held, Outcome, Rejected, Row, Unreachable
from domain.outbox.routes import Route
from tests.builders import some_settings
from tests.conformance.sqs import ACCOUNT, REGION, FifoWorld, SqsWorld
from tests.servers import Server, a_server, saying, trickling
from worker.destinations.sqs import Sqs, region_of
from worker.destinations.sqs_messages import LIMIT_BYTES, Entry, chunks, entry_of
from worker.formats import Message

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

#: A queue that nobody needs: the server before it answers what it is told.
QUEUE = f"sqs://sqs.{REGION}.amazonaws.com/{ACCOUNT}/bookings"

#: More than any answer here takes, and less than anybody waits.
TIMEOUT_SECONDS = 20.0


def a_row(row_id: int = 1, *, payload: str = '{"note": "Zoë"}', **headers: str) -> Row:
    return Row(row_id, uuid4(), uuid4(), "booking.created", payload, json.dumps(headers), 0, NOON, None, None, NOON)


def some_rows(count: int, payload: str = "{}") -> Sequence[Row]:
    return [a_row(row_id, payload=payload) for row_id in range(1, count + 1)]


@pytest.fixture
def sqs() -> Iterator[SqsWorld]:
    world = SqsWorld()
    yield world
    world.close()


@pytest.fixture
def fifo() -> Iterator[FifoWorld]:
    world = FifoWorld()
    yield world
    world.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that boto3 takes for SQS."""
    with a_server() as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.url.removesuffix("/hook"))
        yield server


def a_sink(url: str = QUEUE, *, stopping: Event | None = None, **fields: Any) -> Sqs:
    options = {"timeout_seconds": TIMEOUT_SECONDS} | fields
    return Sqs(Route(name="queue", url=url, **options), some_settings(), stopping or Event())


def delivered(rows: Sequence[Row], url: str = QUEUE, **fields: Any) -> Sequence[Outcome]:
    sink = a_sink(url, **fields)
    try:
        return sink.deliver(rows)
    finally:
        sink.close()


def messages(world: SqsWorld) -> Sequence[Any]:
    return list(sqs_backends[ACCOUNT][REGION].queues[world.url.rpartition("/")[2]].messages)


def calls(server: Server) -> list[list[dict[str, Any]]]:
    """Return the entries of each call that the server heard."""
    return [json.loads(heard.body)["Entries"] for heard in server.heard]


def taking_all(handler: BaseHTTPRequestHandler) -> None:
    """Answer that every message of a call was taken."""
    saying(200, json.dumps({"Successful": [{"Id": str(number)} for number in range(10)]}).encode())(handler)


def test_a_message_is_the_event_and_its_attributes_are_its_type_and_the_request_behind_it(sqs: SqsWorld) -> None:
    row = a_row(traceparent="00-1-2-01", correlation_id="request-1")

    assert delivered([row], sqs.url) == [Delivered()]

    (message,) = messages(sqs)
    assert json.loads(message.body)["event_id"] == str(row.event_id)
    said = {name: attribute["StringValue"] for name, attribute in message.message_attributes.items()}
    assert said == {"EventType": "booking.created", "traceparent": "00-1-2-01", "X-Request-Id": "request-1"}
    assert (message.group_id, message.deduplication_id) == (None, None)


def test_on_a_fifo_queue_the_group_is_the_aggregate_and_a_repeat_has_the_same_id(fifo: FifoWorld) -> None:
    row = a_row()

    assert delivered([row], fifo.url) == delivered([row], fifo.url) == [Delivered()]

    (message,) = messages(fifo)
    assert (message.group_id, message.deduplication_id) == (str(row.aggregate_id), str(row.event_id))


def test_a_replay_is_not_dropped_as_a_repeat_and_its_own_repeat_is(fifo: FifoWorld) -> None:
    row = a_row()
    replays = [row._replace(headers=json.dumps({"replayed": at})) for at in ("2030-01-01T12:00:00Z", "later today")]

    for one in (row, *replays, *replays):
        assert delivered([one], fifo.url) == [Delivered()]

    assert [json.loads(message.body)["event_id"] for message in messages(fifo)] == [str(row.event_id)] * 3


def test_what_a_client_calls_its_request_makes_no_replay_of_an_event(fifo: FifoWorld) -> None:
    row = a_row(correlation_id="replayed")

    assert delivered([row], fifo.url) == [Delivered()]

    (message,) = messages(fifo)
    assert message.deduplication_id == str(row.event_id)


def test_a_call_takes_ten_messages_and_calls_go_out_at_once(server: Server) -> None:
    together = Barrier(3)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        together.wait(timeout=TIMEOUT_SECONDS)
        taking_all(handler)

    server.answer = answer

    assert delivered(some_rows(25), concurrency=3) == [Delivered()] * 25
    assert sorted(map(len, calls(server))) == [5, 10, 10]


def test_no_more_calls_are_under_way_than_the_route_allows(server: Server) -> None:
    server.answer = taking_all

    assert delivered(some_rows(100), concurrency=2) == [Delivered()] * 100
    assert len(server.connections) <= 2


def test_a_call_takes_as_many_bytes_as_sqs_does() -> None:
    sizes = [100_000, 100_000, 100_000, LIMIT_BYTES, 1, LIMIT_BYTES - 1]

    found = list(chunks(Entry(number, {}, size) for number, size in enumerate(sizes)))

    assert [[entry.size for entry in chunk] for chunk in found] == [
        [100_000, 100_000],
        [100_000],
        [LIMIT_BYTES],
        [1, LIMIT_BYTES - 1],
    ]


def test_a_message_is_measured_in_bytes_and_with_its_attributes() -> None:
    row, attributes = a_row(), {"note": "Zoë"}
    around = len("EventTypeStringbooking.created") + len("noteStringZoë".encode())
    largest = "é" * ((LIMIT_BYTES - around) // 2)

    fits = entry_of(row, Message(largest, attributes=attributes), is_fifo=False)
    too_large = entry_of(row, Message(largest + "éé", attributes=attributes), is_fifo=False)

    assert isinstance(fits, Entry) and LIMIT_BYTES - 1 <= fits.size <= LIMIT_BYTES
    assert isinstance(too_large, Rejected)


def test_what_is_too_large_is_rejected_before_it_is_sent_and_its_neighbours_are_taken(sqs: SqsWorld) -> None:
    large = a_row(2, payload=json.dumps({"note": "x" * LIMIT_BYTES}))

    outcomes = delivered([a_row(1), large, a_row(3)], sqs.url)

    assert outcomes[0] == outcomes[2] == Delivered()
    assert isinstance(outcomes[1], Rejected)
    assert "262,374 bytes" in outcomes[1].error and "takes 262,144" in outcomes[1].error
    assert len(sqs.arrived()) == 2


def test_an_attribute_without_a_value_is_left_out_and_there_are_ten_at_most() -> None:
    attributes = {"empty": ""} | {f"name{number}": "value" for number in range(12)}

    entry = entry_of(a_row(), Message("{}", attributes=attributes), is_fifo=False)

    assert isinstance(entry, Entry)
    assert list(entry.fields["MessageAttributes"]) == [f"name{number}" for number in range(10)]


def test_a_format_may_name_the_type_itself() -> None:
    entry = entry_of(a_row(), Message("{}", attributes={"EventType": "BookingCreated"}), is_fifo=False)

    assert isinstance(entry, Entry)
    assert entry.fields["MessageAttributes"]["EventType"]["StringValue"] == "BookingCreated"


def test_characters_that_sqs_refuses_come_through_in_a_body_and_are_marked_in_an_attribute() -> None:
    note = "Zoë \uffff\ufffe 😀"
    body = json.dumps({"note": note}, ensure_ascii=False)

    entry = entry_of(a_row(), Message(body, attributes={"id": "a\uffff\x01b"}), is_fifo=False)

    assert isinstance(entry, Entry)
    assert json.loads(entry.fields["MessageBody"]) == {"note": note}
    assert "\uffff" not in entry.fields["MessageBody"] and "😀" in entry.fields["MessageBody"]
    assert entry.fields["MessageAttributes"]["id"]["StringValue"] == "a\ufffd\ufffdb"


def test_a_row_that_can_not_be_written_fails_alone(sqs: SqsWorld) -> None:
    bad = a_row(2)._replace(headers="no JSON")

    outcomes = delivered([a_row(1), bad, a_row(3)], sqs.url)

    assert [type(outcome) for outcome in outcomes] == [Delivered, Failed, Delivered]


def failing(**entry: Any) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer that the first message of a call was not taken."""
    return saying(200, json.dumps({"Failed": [{"Id": "0", "Message": "sorry", **entry}]}).encode())


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        ({"Code": "InvalidMessageContents", "SenderFault": True}, Rejected),
        ({"Code": "InvalidParameterValue", "SenderFault": True}, Rejected),
        ({"Code": "InternalError", "SenderFault": False}, Failed),
        ({"Code": "RequestThrottled", "SenderFault": True}, Unreachable),
        ({"Code": "KMS.ThrottlingException", "SenderFault": True}, Unreachable),
        ({"Code": "KmsThrottled", "SenderFault": True}, Unreachable),
        ({"Code": "KmsAccessDenied", "SenderFault": True}, Unreachable),
        ({"Code": "KMS.DisabledException", "SenderFault": True}, Unreachable),
        ({"Code": "AccessDenied", "SenderFault": True}, Unreachable),
        ({"Code": "AWS.SimpleQueueService.NonExistentQueue", "SenderFault": True}, Unreachable),
        ({"Code": "ServiceUnavailable", "SenderFault": False}, Unreachable),
        ({"SenderFault": False}, Failed),
    ],
)
def test_a_message_that_was_not_taken_is_judged_by_whose_fault_it_was(
    server: Server, entry: Mapping[str, Any], outcome: type[Outcome]
) -> None:
    server.answer = failing(**entry)

    (found,) = delivered([a_row()])

    assert isinstance(found, outcome) and "sorry" in str(found)
    assert getattr(found, "throttled", False) == ("hrottl" in str(entry.get("Code")))


@pytest.mark.parametrize(
    ("status", "code", "throttled"),
    [
        (400, "com.amazonaws.sqs#QueueDoesNotExist", False),
        (400, "com.amazonaws.sqs#RequestThrottled", True),
        (400, "com.amazon.coral.service#ThrottlingException", True),
        (400, "com.amazonaws.sqs#KmsThrottled", True),
        (400, "com.amazonaws.sqs#KmsDisabled", False),
        (400, "com.amazon.coral.service#AccessDeniedException", False),
        (403, "com.amazon.coral.service#InvalidClientTokenId", False),
        (403, "com.amazon.coral.service#SignatureDoesNotMatch", False),
        (429, "", True),
        (500, "com.amazonaws.sqs#InternalError", False),
        (503, "", False),
        (302, "", False),
        (404, "", False),
    ],
)
def test_a_call_that_was_not_taken_is_an_outage_and_boto3_does_not_repeat_it(
    server: Server, status: int, code: str, throttled: bool
) -> None:
    server.answer = saying(status, json.dumps({"__type": code, "message": "sorry"} if code else {}).encode())

    outcomes = delivered([a_row(1), a_row(2)])

    for outcome in outcomes:
        assert isinstance(outcome, Unreachable) and outcome.throttled == throttled
    assert len(server.heard) == 1


@pytest.mark.parametrize("code", ["InvalidMessageContents", "InvalidParameterValue", "BatchRequestTooLong"])
def test_a_call_that_fell_for_one_message_is_made_again_for_each_alone(server: Server, code: str) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        is_bad = b"poison" in server.heard[-1].body
        answer = saying(400, json.dumps({"__type": f"com.amazonaws.sqs#{code}"}).encode()) if is_bad else taking_all
        answer(handler)

    server.answer = answer

    outcomes = delivered([a_row(1), a_row(2, payload='"poison"'), a_row(3)], concurrency=1)

    assert [type(outcome) for outcome in outcomes] == [Delivered, Rejected, Delivered]
    assert list(map(len, calls(server))) == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}",
        b"[1, 2]",
        b'"Successful"',
        b"\xff\xfe nonsense",
        b'{"Successful": 5}',
        b'{"Successful": [5]}',
        b'{"Successful": [{}]}',
        b'{"Successful": [{"Id": "7"}]}',
        b'{"Failed": "all"}',
        b'{"Successful": [{"Id": "0"',
    ],
)
def test_what_an_answer_does_not_say_was_taken_is_not_taken_for_delivered(server: Server, answer: bytes) -> None:
    server.answer = saying(200, answer)

    (outcome,) = delivered([a_row()])

    assert isinstance(outcome, Unreachable)


def test_of_a_message_that_was_taken_and_failed_the_worse_is_believed(server: Server) -> None:
    server.answer = saying(200, b'{"Successful": [{"Id": "0"}], "Failed": [{"Id": "0", "SenderFault": false}]}')

    assert [type(outcome) for outcome in delivered([a_row()])] == [Failed]


def test_nothing_more_is_sent_to_a_queue_that_is_down(server: Server) -> None:
    server.answer = saying(503)

    outcomes = delivered(some_rows(100), concurrency=1)

    assert len(server.heard) == 1
    assert outcomes[10:] == [Held()] * 90


def test_an_answer_that_comes_drop_by_drop_is_not_waited_for_and_holds_no_thread(server: Server) -> None:
    server.answer = trickling(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ", every_seconds=0.05)
    sink = a_sink(timeout_seconds=0.5, concurrency=1)

    for _ in range(2):
        (outcome,) = sink.deliver([a_row()])
        assert isinstance(outcome, Unreachable) and "did not answer within 0.5 s" in outcome.error

    server.answer = taking_all
    assert sink.deliver([a_row()]) == [Delivered()]
    sink.close()


def test_an_answer_without_end_is_hung_up_on(server: Server) -> None:
    server.answer = saying(200, b" " * 300_000)

    (outcome,) = delivered([a_row()])

    assert isinstance(outcome, Unreachable) and "262,144 bytes" in outcome.error


def test_the_proxy_of_the_environment_is_taken(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://sqs.example.test")
    monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/hook").replace("//", "//me:secret@"))
    server.answer = taking_all

    assert delivered([a_row()]) == [Delivered()]
    assert server.heard[0].path == "http://sqs.example.test/"
    assert server.heard[0].headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"


def test_no_call_begins_when_the_process_stops(server: Server) -> None:
    stopping = Event()
    stopping.set()

    assert delivered([a_row()], stopping=stopping) == [Held()]
    assert server.heard == []


def test_a_queue_that_is_not_there_is_an_outage(sqs: SqsWorld) -> None:
    (outcome,) = delivered([a_row()], f"sqs://sqs.{REGION}.amazonaws.com/{ACCOUNT}/not-there")

    assert isinstance(outcome, Unreachable)


def test_credentials_that_are_missing_are_an_outage(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    (outcome,) = delivered([a_row()])

    assert isinstance(outcome, Unreachable) and "credentials" in outcome.error
    assert server.heard == []


def test_requests_are_signed_for_the_region_of_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-southeast-2")
    server.answer = taking_all

    delivered([a_row()])

    assert "/ap-southeast-2/sqs/" in server.heard[0].headers["authorization"]


@pytest.mark.parametrize(
    ("host", "environment", "region"),
    [
        ("sqs.eu-west-1.amazonaws.com", {}, "eu-west-1"),
        ("sqs.cn-north-1.amazonaws.com.cn", {}, "cn-north-1"),
        ("sqs.us-gov-west-1.amazonaws.com", {}, "us-gov-west-1"),
        ("vpce-0a1b-xyz.sqs.eu-west-1.vpce.amazonaws.com", {}, "eu-west-1"),
        ("queues.example.com", {"AWS_REGION": "eu-west-3"}, "eu-west-3"),
        # The worker runs elsewhere, and the queue is where its host says.
        ("sqs.eu-west-1.amazonaws.com", {"AWS_REGION": "us-east-1"}, "eu-west-1"),
        # Nothing is sent to that host.
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
    ("url", "said"),
    [
        ("sqs://queues.example.com/1/bookings", "Set AWS_REGION"),
        ("sqs://", "names no queue"),
        ("sqs://sqs.eu-west-1.amazonaws.com", "names no queue"),
        ("sqs://sqs.eu-west-1.amazonaws.com/1/", "names no queue"),
        ("sqs://sqs.eu-west-1.amazonaws.com/1/two words", "names no queue"),
        ("sqs://sqs.eu-west-1.amazonaws.com/1/bookings?delay=5", "no options"),
    ],
)
def test_a_url_that_leads_nowhere_keeps_the_worker_from_starting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, said: str
) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)

    with pytest.raises(SystemExit) as refused:
        a_sink(url)

    assert refused.value.code == 2
    complaint = capsys.readouterr().err
    assert "HOLDFAST_ROUTES" in complaint and "'queue'" in complaint and said in complaint
