"""`sqs://host/account/queue` sends to a queue of Amazon SQS, ten messages a call; FIFO where its name ends in .fifo."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from domain.outbox import NOT_SENT, Outcome, Rejected, Row, Unreachable
from domain.outbox.routes import Route
from domain.runtime.settings import Settings
from worker.formats import format_of
from worker.relay.ordered_batches import in_ordered_batches, written
from worker.relay.ordering import BATCH_SECONDS
from worker.route_options import refuse, timeout_of
from worker.sinks.sqs.messages import Chunk, Entry, chunks, entry_of
from worker.sinks.sqs.responses import each, finds_fault_with_a_message, read, refused
from worker.sinks.sqs.transport import Wire

#: A queue's URL: any path, and at its end a name.
PATH = re.compile(r"/(?:[^/]+/)*[A-Za-z0-9_-]{1,80}(?:\.fifo)?")

#: Where the host of a queue names its region.
REGION = re.compile(r"(?:^|\.)(?:sqs|sqs-fips)\.([a-z]{2,}(?:-[a-z]+)+-\d+)\.")

#: Hosts that boto3 finds by the region alone.
WELL_KNOWN = re.compile(r"sqs\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?")

#: boto3's own variables, which send requests elsewhere, such as to a test's server.
OVERRIDES = ("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL")


class Sqs:
    """The calls of a round go out at once, each answered for message by message. The row alone retries: boto3 never."""

    def __init__(self, route: Route, settings: Settings, stopping: Event) -> None:
        self._format = format_of(route)
        self._stopping = stopping
        timeout_seconds = timeout_of(route, settings)
        self._client, self._wire = _client(route, timeout_seconds)
        self._queue_url = "https://" + route.url.removeprefix("sqs://")
        self._is_fifo = route.url.endswith(".fifo")
        self._threads = ThreadPoolExecutor(route.concurrency, thread_name_prefix="sqs")

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return in_ordered_batches(rows, self._send, self._stopping)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        self._wire.close()

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        """Send rows of different aggregates, several calls at once."""
        entries, outcomes = written(rows, self._entry)
        calling, down = list(chunks(entry for _, entry in entries)), Event()
        ends = time.monotonic() + BATCH_SECONDS
        calls = [self._threads.submit(self._call, chunk, down, ends) for chunk in calling]
        for chunk, call in zip(calling, calls, strict=True):
            outcomes |= _answered(chunk, call)
        return [outcomes[row.id] for row in rows]

    def _call(self, chunk: Chunk, down: Event, ends: float) -> Mapping[int, Outcome]:
        """Send a chunk, unless the queue was found to be down meanwhile, or the time of the round is over."""
        if down.is_set() or self._stopping.is_set() or time.monotonic() > ends:
            return each(chunk, NOT_SENT)
        try:
            answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=_numbered(chunk))
            outcomes = read(answer, chunk)
        except ClientError as error:
            if len(chunk) > 1 and finds_fault_with_a_message(error):
                # The whole call fell for one message: alone, each is answered for itself.
                return {row: outcome for entry in chunk for row, outcome in self._call([entry], down, ends).items()}
            outcomes = each(chunk, refused(error))
        except BotoCoreError as error:
            outcomes = each(chunk, Unreachable(f"{type(error).__name__}: {error}"))
        if any(isinstance(outcome, Unreachable) for outcome in outcomes.values()):
            down.set()
        return outcomes

    def _entry(self, row: Row) -> Entry | Rejected:
        return entry_of(row, self._format(row), is_fifo=self._is_fifo)


def _answered(chunk: Chunk, call: "Future[Mapping[int, Outcome]]") -> Mapping[int, Outcome]:
    if error := call.exception():
        # Nonsense for an answer breaks boto3 in many ways.
        return each(chunk, Unreachable(f"{type(error).__name__}: {error}"))
    return call.result()


def _numbered(chunk: Chunk) -> Sequence[Mapping[str, Any]]:
    return [{"Id": str(number), **entry.fields} for number, entry in enumerate(chunk)]


def _client(route: Route, timeout_seconds: float) -> tuple[Any, Wire]:
    parts = urlsplit(route.url)
    if not parts.hostname or not PATH.fullmatch(parts.path) or parts.query or parts.fragment:
        refuse(
            route,
            "its URL names no queue. Write sqs:// and the queue's URL without its https://, such as"
            " sqs://sqs.eu-west-1.amazonaws.com/123456789012/bookings.fifo, with no options",
        )
    config = Config(retries={"total_max_attempts": 1})
    is_found_by_region = WELL_KNOWN.fullmatch(parts.hostname or "") or any(os.environ.get(name) for name in OVERRIDES)
    endpoint = None if is_found_by_region else f"https://{parts.netloc}"
    try:
        session = botocore.session.get_session()
        client = boto3.session.Session(botocore_session=session).client(
            "sqs", region_name=region_of(route), endpoint_url=endpoint, config=config
        )
        wire = Wire(
            client,
            timeout_seconds=timeout_seconds,
            connections=route.concurrency,
            ca_bundle=session.get_config_variable("ca_bundle"),
        )
    except (BotoCoreError, ValueError, OSError) as error:
        refuse(route, f"boto3 can't open it: {error}")
    return client, wire


def region_of(route: Route) -> str:
    """Return the region to sign for: AWS_REGION, or the one in the host's name.

    Where requests really go to a host that names its region, that counts: no other can be right.
    """
    parts = urlsplit(route.url)
    in_host, said = REGION.search(parts.hostname or ""), os.environ.get("AWS_REGION")
    goes_there = not any(os.environ.get(name) for name in OVERRIDES)
    if in_host and (goes_there or not said):
        return in_host[1]
    return said or refuse(route, f"the host {parts.hostname} names no AWS region. Set AWS_REGION")
