"""What the tests of `sqs://` send, and a server that answers in place of SQS."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from threading import Event
from typing import Any
from uuid import uuid4

import pytest

from domain.outbox import Outcome, Route, Row
from tests.conformance.sqs import ACCOUNT, REGION
from tests.support.builders import some_settings
from tests.support.http_server import Server, a_server, saying
from worker.ordering.pace import Pace
from worker.sinks.sqs.sink import Sqs

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

#: A queue that need not exist: boto3 is sent to the server of `an_endpoint` instead.
QUEUE = f"sqs://sqs.{REGION}.amazonaws.com/{ACCOUNT}/bookings"

#: Longer than any answer of these tests takes.
TIMEOUT_SECONDS = 20.0


def a_row(row_id: int = 1, *, payload: str = '{"note": "Zoë"}', **headers: str) -> Row:
    return Row(row_id, uuid4(), uuid4(), "booking.created", payload, json.dumps(headers), 0, NOON, None, None, NOON)


def some_rows(count: int, payload: str = "{}") -> Sequence[Row]:
    return [a_row(row_id, payload=payload) for row_id in range(1, count + 1)]


def a_sink(url: str = QUEUE, *, stopping: Event | None = None, **fields: Any) -> Sqs:
    options = {"timeout_seconds": TIMEOUT_SECONDS} | fields
    return Sqs(Route(name="queue", url=url, **options), some_settings(), Pace(stopping or Event()))


def outcomes_of(rows: Sequence[Row], url: str = QUEUE, **fields: Any) -> Sequence[Outcome]:
    sink = a_sink(url, **fields)
    try:
        return sink.deliver(rows)
    finally:
        sink.close()


@contextmanager
def an_endpoint(environment: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run a server to which boto3 sends its requests for SQS."""
    with a_server() as server:
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_ENDPOINT_URL_SQS", server.url.removesuffix("/hook"))
        yield server


def taking_all(handler: BaseHTTPRequestHandler) -> None:
    """Answer that every message of a call was taken."""
    saying(200, json.dumps({"Successful": [{"Id": str(number)} for number in range(10)]}).encode())(handler)


def calls(server: Server) -> list[list[dict[str, Any]]]:
    """Return the entries of each call that arrived at the server."""
    return [json.loads(request.body)["Entries"] for request in server.requests]
