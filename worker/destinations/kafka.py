"""`kafka://` produces to a topic, idempotently and acknowledged by all replicas; the key is the aggregate."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event, Lock
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from confluent_kafka import KafkaError, KafkaException, Producer

from domain.outbox import Delivered, Failed, Outcome, Rejected, Row, Unreachable
from domain.outbox.routes import Route
from domain.settings import Settings, refuse_to_start
from worker.destinations.answers import Answers
from worker.formats import format_of
from worker.rounds import in_rounds

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

#: librdkafka looks once a second for messages whose time is over.
LATE_SECONDS = 2.0

#: How long one call looks for answers. Those for this thread may reach another, which takes them in.
LOOK_SECONDS = 0.005

#: librdkafka writes to standard error by itself: emergencies only, as the drain tells of outages.
EMERGENCIES = 0

#: librdkafka's own limit of a message.
MESSAGE_MAX_BYTES = 1_000_000

#: One message a batch, as a broker refuses whole batches.
ALONE = {"batch.num.messages": 1}

#: What is wrong with a message, or with another one of its batch, and always will be.
REJECTED = frozenset(
    {
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError._INVALID_DIFFERENT_RECORD,
    }
)

#: What happened to a message on its way.
FAILED = frozenset({KafkaError.INVALID_MSG, KafkaError._BAD_MSG})

DELIVERED = Delivered()

Report = Callable[[KafkaError | None, Any], None]


class Kafka:
    """One producer for all threads, until it can't deliver; then a new one, which knows nothing of what is past.

    Options of the URL are librdkafka's properties, and librdkafka checks them.
    """

    def __init__(self, route: Route, settings: Settings, stopping: Event) -> None:
        self._timeout_seconds = route.timeout_seconds or settings.webhook_timeout_seconds
        self._format = format_of(route)
        self._stopping = stopping
        self._topic = _topic(route)
        self._trouble = ""
        self._lock = Lock()
        self._properties = {
            **_options(route),
            "bootstrap.servers": _brokers(route),
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": int(self._timeout_seconds * 1_000),
            "log_level": EMERGENCIES,
            "error_cb": self._on_trouble,
        }
        self._limit = self._properties.get("message.max.bytes", MESSAGE_MAX_BYTES)
        self._producer: Producer | None
        try:
            self._producer = Producer(self._properties)
        except KafkaException as error:
            _refuse(route, error.args[0].str())

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return in_rounds(rows, self._send, self._stopping)

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        try:
            outcomes = list(self._round(self._shared(), rows))
            suspects = [position for position, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)]
            if suspects:
                alone = self._round(Producer(self._properties | ALONE), [rows[position] for position in suspects])
                for position, outcome in zip(suspects, alone, strict=True):
                    outcomes[position] = outcome
        except KafkaException as error:
            return [self._outcome(error.args[0])] * len(rows)
        return outcomes

    def _shared(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self._properties)
            return self._producer

    def _round(self, producer: Producer, rows: Sequence[Row]) -> Sequence[Outcome]:
        """Produce rows and wait for what becomes of them."""
        answers = Answers(len(rows))
        ends = time.monotonic() + self._timeout_seconds + LATE_SECONDS
        for position, row in enumerate(rows):
            self._produce(producer, row, partial(self._on_report, answers, position), ends)
        while not answers.are_complete() and time.monotonic() < ends:
            producer.poll(LOOK_SECONDS)
        answers.give_rest(Unreachable(f"no answer within {self._timeout_seconds:g} s{self._last_trouble()}"))
        outcomes = answers.outcomes()
        if any(isinstance(outcome, Unreachable) for outcome in outcomes):
            self._discard(producer)
        return outcomes

    def _produce(self, producer: Producer, row: Row, report: Report, ends: float) -> None:
        message = self._format(row)
        own = {"event_id": str(row.event_id), "event_type": row.type}
        while time.monotonic() < ends:
            try:
                producer.produce(
                    self._topic,
                    value=message.body,
                    key=str(row.aggregate_id),
                    headers={**message.attributes, "content-type": message.content_type, **own},
                    timestamp=int(row.created_at.timestamp() * 1_000),
                    on_delivery=report,
                )
            except BufferError:
                # Its queue is full, and gets empty as it delivers.
                producer.poll(LOOK_SECONDS)
            except KafkaException as error:
                return report(error.args[0], None)
            else:
                return None
        return None

    def _on_report(self, answers: Answers, position: int, error: KafkaError | None, _: Any) -> None:
        answers.give(position, self._outcome(error) if error else DELIVERED)

    def _outcome(self, error: KafkaError) -> Outcome:
        said = f"{error.name()}: {error.str()}"
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            said += f" (message.max.bytes is {self._limit} here)"
        if error.code() in REJECTED:
            return Rejected(said)
        return Failed(said) if error.code() in FAILED else Unreachable(f"{said}{self._last_trouble()}")

    def _on_trouble(self, error: KafkaError) -> None:
        # That all are down says less than why the last one is.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._trouble = error.str()

    def _last_trouble(self) -> str:
        return f"; {self._trouble}" if self._trouble else f"; is there a topic {self._topic}?"

    def _discard(self, producer: Producer) -> None:
        """Give a producer up, with all that it has not sent: it would come after what is sent next."""
        with self._lock:
            if self._producer is producer:
                self._producer = None
            self._trouble = ""
        producer.purge()

    def close(self) -> None:
        if self._producer is not None:
            self._discard(self._producer)


def _topic(route: Route) -> str:
    name = unquote(urlsplit(route.url).path.removeprefix("/"))
    if not TOPIC.fullmatch(name) or name in {".", ".."}:
        _refuse(
            route,
            "it needs the topic to produce to, of letters, digits, dots, dashes and underscores:"
            " kafka://host1:9092,host2:9092/topic",
        )
    return name


def _brokers(route: Route) -> str:
    brokers = urlsplit(route.url).netloc
    if not brokers:
        _refuse(route, "it must name a broker: kafka://host1:9092,host2:9092/topic")
    if "@" in brokers:
        _refuse(route, "user and password are options: ?sasl.username=…&sasl.password=…&security.protocol=SASL_SSL")
    return brokers


def _options(route: Route) -> Mapping[str, str]:
    # A plus is a plus, not a space: passwords have them.
    pairs = parse_qsl(urlsplit(route.url).query.replace("+", "%2B"), keep_blank_values=True)
    options = dict(pairs)
    for name in options:
        if name in OURS:
            _refuse(route, f"{name} is not for the URL to say: {', '.join(sorted(OURS))} are Holdfast's own")
        # No property of librdkafka has an underscore; those that have are Python's.
        if "_" in name or name in {"logger", "default.topic.config"}:
            _refuse(route, f"{name!r} is no option of it; the options are librdkafka's properties")
    if len(options) < len(pairs):
        _refuse(route, "an option is given twice")
    return options


def _refuse(route: Route, reason: str) -> NoReturn:
    refuse_to_start(f"HOLDFAST_ROUTES: destination {route.name!r}: {reason}.")
