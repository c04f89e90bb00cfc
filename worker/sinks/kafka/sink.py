"""`kafka://` produces to a topic, idempotently and acknowledged by all replicas; the key is the aggregate."""

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from threading import Event, Lock
from urllib.parse import unquote, urlsplit

from confluent_kafka import KafkaException, Producer

from domain.outbox import Outcome, Rejected, Row
from domain.outbox.routes import Route
from domain.runtime.settings import Settings
from worker.formats import format_of
from worker.relay.ordered_batches import in_ordered_batches, written
from worker.route_options import options_of, refuse, timeout_of
from worker.sinks.kafka.producer import Feed, Record

#: What is not for a URL to say, as the promises hang on it.
OURS = frozenset(
    {
        "acks",
        "bootstrap.servers",
        "delivery.timeout.ms",
        "enable.idempotence",
        "message.timeout.ms",
        "metadata.broker.list",
        "request.required.acks",
        "transactional.id",
    }
)

TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

#: librdkafka's own is 10 s: as long as a probe may take.
RECONNECT = {"reconnect.backoff.max.ms": 2_000}

#: One message a batch, as a broker refuses whole batches.
ALONE = {"batch.num.messages": 1}


class Kafka:
    """One producer for all threads, made when it is first needed.

    Options of the URL are librdkafka's properties, and librdkafka checks them.
    """

    def __init__(self, route: Route, settings: Settings, stopping: Event) -> None:
        self._timeout_seconds = timeout_of(route, settings)
        self._format = format_of(route)
        self._stopping = stopping
        self._topic = _topic(route)
        self._properties = {
            **RECONNECT,
            **_options(route),
            "bootstrap.servers": _brokers(route),
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": int(self._timeout_seconds * 1_000),
        }
        self._lock = Lock()
        self._feed: Feed | None = None
        try:
            Producer({**self._properties, "log_level": 0}).close()
        except KafkaException as error:
            refuse(route, error.args[0].str())

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return in_ordered_batches(rows, self._send, self._stopping)

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        entries, outcomes = written(rows, self._written)
        answers = self._produced([record for _, record in entries])
        outcomes.update((row.id, answer) for (row, _), answer in zip(entries, answers, strict=True))
        return [outcomes[row.id] for row in rows]

    def _produced(self, records: Sequence[Record]) -> Sequence[Outcome]:
        outcomes = list(self._shared().send(records))
        suspects = [position for position, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)]
        if suspects:
            # Another message of the batch may be the one that was refused.
            with closing(self._new(ALONE)) as feed:
                alone = feed.send([records[position] for position in suspects])
            for position, outcome in zip(suspects, alone, strict=True):
                outcomes[position] = outcome
        return outcomes

    def _shared(self) -> Feed:
        with self._lock:
            if self._feed is None or self._feed.fault:
                self._feed = self._new()
            return self._feed

    def _new(self, properties: Mapping[str, object] | None = None) -> Feed:
        return Feed({**self._properties, **(properties or {})}, self._topic, self._timeout_seconds)

    def _written(self, row: Row) -> Record:
        message = self._format(row)
        own = {"event_id": str(row.event_id), "event_type": row.type}
        return {
            "value": message.body.encode(),
            "key": str(row.aggregate_id),
            "headers": {**message.attributes, "content-type": message.content_type, **own},
            "timestamp": int(row.created_at.timestamp() * 1_000),
        }

    def close(self) -> None:
        if self._feed:
            self._feed.close()


def _topic(route: Route) -> str:
    name = unquote(urlsplit(route.url).path.removeprefix("/"))
    if not TOPIC.fullmatch(name) or name in {".", ".."}:
        refuse(
            route,
            "it needs the topic to produce to, of letters, digits, dots, dashes and underscores:"
            " kafka://host1:9092,host2:9092/topic",
        )
    return name


def _brokers(route: Route) -> str:
    brokers = urlsplit(route.url).netloc
    if not brokers:
        refuse(route, "it must name a broker: kafka://host1:9092,host2:9092/topic")
    if "@" in brokers:
        refuse(route, "user and password are options: ?sasl.username=…&sasl.password=…&security.protocol=SASL_SSL")
    return brokers


def _options(route: Route) -> Mapping[str, str]:
    options = options_of(route)
    for name in options:
        if name in OURS:
            refuse(route, f"{name} is not for the URL to say: {', '.join(sorted(OURS))} are Holdfast's own")
        # No property of librdkafka has an underscore; those that have are Python's.
        if "_" in name or name in {"logger", "default.topic.config"}:
            refuse(route, f"{name!r} is no option of it; the options are librdkafka's properties")
    return options
