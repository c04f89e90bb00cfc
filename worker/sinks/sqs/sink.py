"""`sqs://host/account/queue` sends to a queue of Amazon SQS, ten messages per call; one that ends in .fifo is FIFO."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from domain.outbox import NOT_SENT, Outcome, Rejected, Route, Row, Unreachable
from domain.runtime.settings import QUEUE, Settings
from worker.formats import format_of
from worker.isolate import Broken, isolate_call
from worker.ordering import calling_threads
from worker.ordering.ordered_batches import deliver_in_batches, encode
from worker.ordering.pace import Pace
from worker.ordering.rules import BATCH_SECONDS
from worker.route_options import timeout_of, wrong_route
from worker.sinks.sqs.messages import Chunk, Entry, chunks, entry_of
from worker.sinks.sqs.responses import blames_a_message, outcome_of_error, outcomes_of, same_for_all
from worker.sinks.sqs.transport import Transport

#: The part of a queue's host that names its region.
REGION = re.compile(r"(?:^|\.)(?:sqs|sqs-fips)\.([a-z]{2,}(?:-[a-z]+)+-\d+)\.")

#: Hosts that boto3 finds by the region alone.
WELL_KNOWN = re.compile(r"sqs\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?")

#: boto3's own variables, which send requests elsewhere, such as to a test's server.
OVERRIDES = ("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL")


class Sqs:
    """Sends several calls at once, and reads from each response what became of each message.

    Only the row retries: boto3 never does.
    """

    def __init__(self, route: Route, settings: Settings, pace: Pace) -> None:
        self._format = format_of(route)
        self._pace = pace
        timeout_seconds = timeout_of(route, settings)
        self._client, self._transport = _client(route, timeout_seconds)
        self._queue_url = "https://" + route.url.removeprefix("sqs://")
        self._is_fifo = route.url.endswith(".fifo")
        self._threads = calling_threads.pool(route.concurrency)

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return deliver_in_batches(rows, self._send, self._pace)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        self._transport.close()

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        """Send rows of different aggregates, several calls at once."""
        entries, outcomes = encode(rows, self._entry)
        sent, down = list(chunks(entry for _, entry in entries)), Event()
        deadline = time.monotonic() + BATCH_SECONDS
        calls = [self._threads.submit(self._call, chunk, down, deadline) for chunk in sent]
        for chunk, call in zip(sent, calls, strict=True):
            outcomes |= _finished(chunk, call)
        return [outcomes[row.id] for row in rows]

    def _call(self, chunk: Chunk, down: Event, deadline: float) -> Mapping[int, Outcome]:
        """Send a chunk, unless another call has found the queue down, or the time of the batch is over."""
        if down.is_set() or self._pace.stopping.is_set() or time.monotonic() > deadline:
            return same_for_all(chunk, NOT_SENT)
        try:
            response = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=_numbered(chunk))
            outcomes = outcomes_of(response, chunk)
        except ClientError as error:
            if len(chunk) > 1 and blames_a_message(error):
                # SQS refused the whole call because of one message. Each message is sent again alone.
                return {row: outcome for entry in chunk for row, outcome in self._call([entry], down, deadline).items()}
            outcomes = same_for_all(chunk, outcome_of_error(error))
        except BotoCoreError as error:
            outcomes = same_for_all(chunk, Unreachable(f"{type(error).__name__}: {error}"))
        if any(isinstance(outcome, Unreachable) for outcome in outcomes.values()):
            down.set()
        return outcomes

    def _entry(self, row: Row) -> Entry | Rejected:
        return entry_of(row, self._format(row), is_fifo=self._is_fifo)


def _finished(chunk: Chunk, call: "Future[Mapping[int, Outcome]]") -> Mapping[int, Outcome]:
    # boto3 raises errors of many kinds for a response that makes no sense.
    outcomes = isolate_call(call)
    return same_for_all(chunk, Unreachable(outcomes.error)) if isinstance(outcomes, Broken) else outcomes


def _numbered(chunk: Chunk) -> Sequence[Mapping[str, Any]]:
    return [{"Id": str(number), **entry.fields} for number, entry in enumerate(chunk)]


def _client(route: Route, timeout_seconds: float) -> tuple[Any, Transport]:
    parts = urlsplit(route.url)
    if not parts.hostname or not QUEUE.fullmatch(parts.path) or parts.query or parts.fragment:
        raise wrong_route(
            route,
            "its URL names no queue. Write sqs:// and the queue's URL without its https://, such as"
            " sqs://sqs.eu-west-1.amazonaws.com/123456789012/bookings.fifo, with no options",
        )
    config = Config(retries={"total_max_attempts": 1})
    is_found_by_region = WELL_KNOWN.fullmatch(parts.hostname or "") or any(os.environ.get(name) for name in OVERRIDES)
    # Without a user and password: SQS knows neither, and boto3 would quote them in an error.
    endpoint = None if is_found_by_region else f"https://{parts.netloc.rpartition('@')[2]}"
    try:
        session = botocore.session.get_session()
        client = boto3.session.Session(botocore_session=session).client(
            "sqs", region_name=region_of(route), endpoint_url=endpoint, config=config
        )
        transport = Transport(
            client,
            timeout_seconds=timeout_seconds,
            connections=route.concurrency,
            ca_bundle=session.get_config_variable("ca_bundle"),
        )
    except (BotoCoreError, ValueError, OSError) as error:
        raise wrong_route(route, f"boto3 can't open it: {error}") from error
    return client, transport


def region_of(route: Route) -> str:
    """Return the region to sign requests for: AWS_REGION, or the region in the host's name.

    If requests really go to a host whose name has a region, only that region can be right. Raises ConfigurationError
    if there is none.
    """
    parts = urlsplit(route.url)
    in_host, in_environment = REGION.search(parts.hostname or ""), os.environ.get("AWS_REGION")
    goes_there = not any(os.environ.get(name) for name in OVERRIDES)
    if in_host and (goes_there or not in_environment):
        return in_host[1]
    if not in_environment:
        raise wrong_route(route, f"the host {parts.hostname} names no AWS region. Set AWS_REGION")
    return in_environment
