"""A Kafka producer for one topic, and the thread that receives the brokers' reports about its messages."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from domain.outbox import DELIVERED, Outcome, Rejected, Unreachable
from worker.ordering.pending_outcomes import PendingOutcomes

#: How late the report of a time-out may come: librdkafka looks for messages that have timed out once a second.
LATE_SECONDS = 2.0

#: How soon the thread notices that it must end, in seconds.
POLL_SECONDS = 0.2

#: How long a message waits before it is offered to a full queue again, in seconds.
FULL_SECONDS = 0.005

#: The log level of librdkafka, which writes to standard error by itself: emergencies only. The relay logs outages.
EMERGENCIES = 0

#: Errors of a message itself, or of another message in its batch. They come again at every attempt.
REJECTED = frozenset(
    {
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError._INVALID_DIFFERENT_RECORD,
    }
)

#: The arguments of `Producer.produce`.
Record = Mapping[str, Any]

Report = Callable[[KafkaError | None, Any], None]


class TopicProducer:
    """One producer, until an error that concerns more than one message. Then `fault` is set, and a new one is made.

    A broker that does not answer is no such error: librdkafka continues to connect. It drops a message that has timed
    out, so this message can't arrive after the messages that are sent next.
    """

    def __init__(self, properties: Mapping[str, Any], topic: str, timeout_seconds: float) -> None:
        #: The error that ended it. Nothing more is sent.
        self.fault: Unreachable | None = None
        self._topic = topic
        self._timeout_seconds = timeout_seconds
        self._broker_errors = _BrokerErrors()
        self._lock = threading.Lock()
        self._waiting: set[PendingOutcomes] = set()
        self._producer = Producer({**properties, "log_level": EMERGENCIES, "error_cb": self._broker_errors.on_error})
        self._thread = threading.Thread(target=self._run, name="kafka", daemon=True)
        self._thread.start()

    def send(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Produce records and return what became of each."""
        pending = PendingOutcomes(len(records))
        with self._lock:
            if self.fault:
                return [self.fault] * len(records)
            self._waiting.add(pending)
        deadline = time.monotonic() + self._timeout_seconds + LATE_SECONDS
        for position, record in enumerate(records):
            self._produce(record, partial(self._on_report, pending, position, len(record["value"])), deadline)
        if not pending.wait(max(0.0, deadline - time.monotonic())):
            self._end(Unreachable(f"no answer within {self._timeout_seconds:g} s"))
        with self._lock:
            self._waiting.discard(pending)
        return pending.outcomes()

    def close(self) -> None:
        self._end(Unreachable("the destination was closed"))
        self._thread.join()

    def _produce(self, record: Record, report: Report, deadline: float) -> None:
        while time.monotonic() < deadline and not self.fault:
            try:
                self._producer.produce(self._topic, **record, on_delivery=report)
            except BufferError:
                # The producer's queue is full. It empties as messages are delivered.
                time.sleep(FULL_SECONDS)
            except KafkaException as error:
                return report(error.args[0], None)
            else:
                return None
        return None

    def _run(self) -> None:
        try:
            while not self.fault or self._waiting:
                self._producer.poll(POLL_SECONDS)
        except KafkaException as error:
            self._end(self._unreachable(error.args[0]))
        self._producer.purge()
        # librdkafka reports the purged messages as well, and each unread report would keep this object alive.
        self._producer.poll(0)

    def _on_report(self, pending: PendingOutcomes, position: int, size: int, error: KafkaError | None, _: Any) -> None:
        if error is None:
            pending.resolve(position, DELIVERED)
        elif error.code() in REJECTED:
            pending.resolve(position, Rejected(f"{error.name()}: {error.str()} (it has {size:,} bytes)"))
        else:
            pending.resolve(position, self._unreachable(error))

    def _unreachable(self, error: KafkaError) -> Unreachable:
        """Take an error for an outage. Any but a time-out ends the producer."""
        is_timeout = error.code() == KafkaError._MSG_TIMED_OUT
        message = f"no answer within {self._timeout_seconds:g} s" if is_timeout else f"{error.name()}: {error.str()}"
        outage = Unreachable(f"{message}; {self._broker_errors.last}" if self._broker_errors.last else message)
        if not is_timeout:
            self.fault = self.fault or outage
        return outage

    def _end(self, fault: Unreachable) -> None:
        """Send nothing more, and wait for no report any more."""
        with self._lock:
            self.fault = self.fault or fault
            waiting, self._waiting = self._waiting, set()
        for pending in waiting:
            pending.resolve_missing(self.fault)


class _BrokerErrors:
    """The last error that the producer reported of a broker.

    It is an object of its own because a callback must not refer to the TopicProducer: the two would refer to each
    other, and the threads and connections would live until garbage is collected.
    """

    last = ""

    def on_error(self, error: KafkaError) -> None:
        # That all brokers are down says less than why the last one is.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error.str()
