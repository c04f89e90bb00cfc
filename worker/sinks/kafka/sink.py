"""`kafka://` produces to a topic, idempotently and acknowledged by all replicas; the key is the aggregate."""

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from threading import Lock
from urllib.parse import unquote, urlsplit

from confluent_kafka import KafkaException, Producer

from domain.outbox import Outcome, Rejected, Route, Row
from domain.runtime.settings import Settings
from worker.formats import format_of
from worker.ordering.ordered_batches import deliver_in_batches, encode
from worker.ordering.pace import Pace
from worker.route_options import options_of, timeout_of, wrong_route
from worker.sinks.kafka.producer import Record, TopicProducer

#: Properties that a URL can't set, because the guarantees of delivery depend on their values.
RESERVED = frozenset(
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

#: librdkafka's default is 10 s, which is as long as a probe may take.
RECONNECT = {"reconnect.backoff.max.ms": 2_000}

#: One message a batch: brokers refuse whole batches, so only a message that is sent alone is judged by itself.
ALONE = {"batch.num.messages": 1}


class Kafka:
    """One producer for all threads. It is made when it is first needed.

    The options of the URL are librdkafka's properties, and librdkafka checks them.
    """

    def __init__(self, route: Route, settings: Settings, pace: Pace) -> None:
        self._timeout_seconds = timeout_of(route, settings)
        self._format = format_of(route)
        self._pace = pace
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
        self._producer: TopicProducer | None = None
        try:
            Producer({**self._properties, "log_level": 0}).close()
        except KafkaException as error:
            raise wrong_route(route, f"{error.args[0].str()}. In a value write & as %26") from None

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return deliver_in_batches(rows, self._send, self._pace)

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        entries, outcomes = encode(rows, self._record)
        produced = self._produce([record for _, record in entries])
        outcomes.update((row.id, outcome) for (row, _), outcome in zip(entries, produced, strict=True))
        return [outcomes[row.id] for row in rows]

    def _produce(self, records: Sequence[Record]) -> Sequence[Outcome]:
        outcomes = list(self._shared_producer().send(records))
        suspects = [position for position, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)]
        if suspects:
            # The broker may have refused the batch because of another message in it.
            with closing(self._new_producer(ALONE)) as producer:
                alone = producer.send([records[position] for position in suspects])
            for position, outcome in zip(suspects, alone, strict=True):
                outcomes[position] = outcome
        return outcomes

    def _shared_producer(self) -> TopicProducer:
        with self._lock:
            if self._producer is None or self._producer.fault:
                self._producer = self._new_producer()
            return self._producer

    def _new_producer(self, properties: Mapping[str, object] | None = None) -> TopicProducer:
        return TopicProducer({**self._properties, **(properties or {})}, self._topic, self._timeout_seconds)

    def _record(self, row: Row) -> Record:
        message = self._format(row)
        own = {"event_id": str(row.event_id), "event_type": row.type}
        return {
            "value": message.body.encode(),
            "key": str(row.aggregate_id),
            "headers": {**message.attributes, "content-type": message.content_type, **own},
            "timestamp": int(row.created_at.timestamp() * 1_000),
        }

    def close(self) -> None:
        if self._producer:
            self._producer.close()


def _topic(route: Route) -> str:
    name = unquote(urlsplit(route.url).path.removeprefix("/"))
    if not TOPIC.fullmatch(name) or name in {".", ".."}:
        raise wrong_route(
            route,
            "it needs the topic to produce to, of letters, digits, dots, dashes and underscores:"
            " kafka://host1:9092,host2:9092/topic",
        )
    return name


def _brokers(route: Route) -> str:
    brokers = urlsplit(route.url).netloc
    if not brokers:
        raise wrong_route(route, "it must name a broker: kafka://host1:9092,host2:9092/topic")
    if "@" in brokers:
        raise wrong_route(
            route, "user and password are options: ?sasl.username=…&sasl.password=…&security.protocol=SASL_SSL"
        )
    return brokers


def _options(route: Route) -> Mapping[str, str]:
    options = options_of(route)
    for name in options:
        if name in RESERVED:
            raise wrong_route(
                route, f"{name} can't be an option of the URL: Holdfast itself sets {', '.join(sorted(RESERVED))}"
            )
        # No property of librdkafka has an underscore. The options that have one are confluent_kafka's own, for Python.
        if "_" in name or name in {"logger", "default.topic.config"}:
            raise wrong_route(route, f"{name!r} is no option of it; the options are librdkafka's properties")
    return options
