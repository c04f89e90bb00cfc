"""`sqs://`, the responses: what each of them, and the lack of one, means for a row."""

import json
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from domain.outbox import Cause, Delivered, NotSent, Outcome, Rejected, Unreachable
from tests.conformance.sqs import ACCOUNT, REGION, SqsHarness
from tests.support.http_server import Server, saying, sending, trickling
from tests.worker.sinks.sqs import a_row, a_sink, an_endpoint, calls, outcomes_of, some_rows, taking_all

#: To make a client of boto3 takes longer than most tests.
pytestmark = pytest.mark.slow


@pytest.fixture
def sqs() -> Iterator[SqsHarness]:
    harness = SqsHarness()
    yield harness
    harness.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with an_endpoint(monkeypatch) as server:
        yield server


def failing(**entry: Any) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer that the first message of a call was not taken."""
    return saying(200, json.dumps({"Failed": [{"Id": "0", "Message": "sorry", **entry}]}).encode())


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        ({"Code": "InvalidMessageContents", "SenderFault": True}, Rejected),
        ({"Code": "InvalidParameterValue", "SenderFault": True}, Rejected),
        ({"Code": "InternalError", "SenderFault": False}, Unreachable),
        ({"Code": "RequestThrottled", "SenderFault": True}, Unreachable),
        ({"Code": "KMS.ThrottlingException", "SenderFault": True}, Unreachable),
        ({"Code": "KmsThrottled", "SenderFault": True}, Unreachable),
        ({"Code": "KmsAccessDenied", "SenderFault": True}, Unreachable),
        ({"Code": "KMS.DisabledException", "SenderFault": True}, Unreachable),
        ({"Code": "AccessDenied", "SenderFault": True}, Unreachable),
        ({"Code": "AWS.SimpleQueueService.NonExistentQueue", "SenderFault": True}, Unreachable),
        ({"Code": "ServiceUnavailable", "SenderFault": False}, Unreachable),
        ({"SenderFault": False}, Unreachable),
    ],
)
def test_the_outcome_of_a_message_that_was_not_taken_depends_on_whose_fault_it_was(
    server: Server, entry: Mapping[str, Any], outcome: type[Outcome]
) -> None:
    server.answer = failing(**entry)

    (found,) = outcomes_of([a_row()])

    assert isinstance(found, outcome) and "sorry" in str(found)
    assert (getattr(found, "cause", None) is Cause.LOAD) == ("hrottl" in str(entry.get("Code")))


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
        (503, "", True),
        (302, "", False),
        (404, "", False),
    ],
)
def test_a_call_that_was_not_taken_is_an_outage_and_boto3_does_not_retry(
    server: Server, status: int, code: str, throttled: bool
) -> None:
    server.answer = saying(status, json.dumps({"__type": code, "message": "sorry"} if code else {}).encode())

    outcomes = outcomes_of([a_row(1), a_row(2)])

    for outcome in outcomes:
        assert isinstance(outcome, Unreachable) and (outcome.cause is Cause.LOAD) == throttled
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", ["InvalidMessageContents", "InvalidParameterValue", "BatchRequestTooLong"])
def test_after_a_call_that_failed_because_of_one_message_each_message_is_sent_alone(server: Server, code: str) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        is_bad = b"poison" in server.requests[-1].body
        answer = saying(400, json.dumps({"__type": f"com.amazonaws.sqs#{code}"}).encode()) if is_bad else taking_all
        answer(handler)

    server.answer = answer

    outcomes = outcomes_of([a_row(1), a_row(2, payload='"poison"'), a_row(3)], concurrency=1)

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
def test_a_message_that_the_response_does_not_mention_is_not_delivered(server: Server, answer: bytes) -> None:
    server.answer = saying(200, answer)

    (outcome,) = outcomes_of([a_row()])

    assert isinstance(outcome, Unreachable)


def test_a_message_that_was_both_taken_and_failed_has_failed(server: Server) -> None:
    server.answer = saying(200, b'{"Successful": [{"Id": "0"}], "Failed": [{"Id": "0", "SenderFault": false}]}')

    assert [type(outcome) for outcome in outcomes_of([a_row()])] == [Unreachable]


def test_nothing_more_is_sent_to_a_queue_that_is_down(server: Server) -> None:
    server.answer = saying(503)

    outcomes = outcomes_of(some_rows(100), concurrency=1)

    assert len(server.requests) == 1
    assert outcomes[10:] == [NotSent()] * 90


def test_a_response_that_trickles_in_is_not_waited_for_and_keeps_no_thread(server: Server) -> None:
    server.answer = trickling(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" ", every_seconds=0.05)
    sink = a_sink(timeout_seconds=0.5, concurrency=1)

    for _ in range(2):
        (outcome,) = sink.deliver([a_row()])
        assert isinstance(outcome, Unreachable) and "did not answer within 0.5 s" in outcome.error

    server.answer = taking_all
    assert sink.deliver([a_row()]) == [Delivered()]
    sink.close()


def test_a_second_response_to_one_call_does_not_answer_the_next(server: Server) -> None:
    taken = b'HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n{"Successful": [{"Id": "0"}]}'
    server.answer = sending(taken * 2, hang_up=False)
    sink = a_sink(concurrency=1)
    assert sink.deliver([a_row()]) == [Delivered()]

    server.answer = failing(Code="InvalidParameterValue", SenderFault=True)
    (outcome,) = sink.deliver([a_row()])
    sink.close()

    assert isinstance(outcome, Rejected)


def test_a_call_is_sent_once_more_if_a_kept_connection_breaks(server: Server) -> None:
    answered = set()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        is_first = handler.client_address not in answered
        answered.add(handler.client_address)
        (taking_all if is_first else sending(b""))(handler)

    server.answer = answer
    sink = a_sink(concurrency=1)
    rows = some_rows(2)

    outcomes = [sink.deliver([row]) for row in rows]

    sink.close()
    assert outcomes == [[Delivered()], [Delivered()]]
    first, second, repeated = calls(server)
    assert first != second == repeated


def test_a_call_that_breaks_on_a_new_connection_is_an_outage(server: Server) -> None:
    server.answer = sending(b"")

    (outcome,) = outcomes_of([a_row()])

    assert isinstance(outcome, Unreachable)
    assert len(server.requests) == 1


def test_a_response_that_is_too_large_is_not_read_to_its_end(server: Server) -> None:
    server.answer = saying(200, b" " * 300_000)

    (outcome,) = outcomes_of([a_row()])

    assert isinstance(outcome, Unreachable) and "262,144 bytes" in outcome.error


def test_a_response_in_thousands_of_chunks_is_not_read_to_its_end(server: Server) -> None:
    server.answer = sending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 5_000)

    (outcome,) = outcomes_of([a_row()])

    assert isinstance(outcome, Unreachable) and "1,000 chunks" in outcome.error


def test_a_queue_that_does_not_exist_is_an_outage(sqs: SqsHarness) -> None:
    (outcome,) = outcomes_of([a_row()], f"sqs://sqs.{REGION}.amazonaws.com/{ACCOUNT}/not-there")

    assert isinstance(outcome, Unreachable)


def test_missing_credentials_are_an_outage(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    (outcome,) = outcomes_of([a_row()])

    assert isinstance(outcome, Unreachable) and "credentials" in outcome.error
    assert server.requests == []
