"""A Kafka producer, and the thread that takes in what becomes of its messages."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from domain.outbox import DELIVERED, Outcome, Rejected, Unreachable
from worker.sinks.pending_outcomes import Answers

#: librdkafka looks once a second for messages whose time is over.
LATE_SECONDS = 2.0

#: How soon the thread notices that it is to end, and how long a full queue is left alone.
LOOK_SECONDS = 0.2
FULL_SECONDS = 0.005

#: librdkafka writes to standard error by itself: emergencies only, as the drain tells of outages.
EMERGENCIES = 0

#: What is wrong with a message, or with another one of its batch, and always will be.
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


class Feed:
    """One producer, until an error of more than one message. After it a new one is made, which knows nothing of it.

    Nobody there is not the end: librdkafka goes on connecting. A message whose time is over
    it drops, so that can't come after what is sent next.
    """

    def __init__(self, properties: Mapping[str, Any], topic: str, timeout_seconds: float) -> None:
        #: What ended it: no round begins any more.
        self.fault: Unreachable | None = None
        self._topic = topic
        self._timeout_seconds = timeout_seconds
        self._trouble = _Trouble()
        self._lock = threading.Lock()
        self._rounds: set[Answers] = set()
        self._producer = Producer({**properties, "log_level": EMERGENCIES, "error_cb": self._trouble.note})
        self._thread = threading.Thread(target=self._run, name="kafka", daemon=True)
        self._thread.start()

    def send(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Produce records and return what became of each."""
        answers = Answers(len(records))
        with self._lock:
            if self.fault:
                return [self.fault] * len(records)
            self._rounds.add(answers)
        ends = time.monotonic() + self._timeout_seconds + LATE_SECONDS
        for position, record in enumerate(records):
            self._produce(record, partial(self._on_report, answers, position, len(record["value"])), ends)
        if not answers.wait(max(0.0, ends - time.monotonic())):
            self._give_up(Unreachable(f"no answer within {self._timeout_seconds:g} s"))
        with self._lock:
            self._rounds.discard(answers)
        return answers.outcomes()

    def close(self) -> None:
        self._give_up(Unreachable("the destination was closed"))
        self._thread.join()

    def _produce(self, record: Record, report: Report, ends: float) -> None:
        while time.monotonic() < ends and not self.fault:
            try:
                self._producer.produce(self._topic, **record, on_delivery=report)
            except BufferError:
                # Its queue is full, and gets empty as it delivers.
                time.sleep(FULL_SECONDS)
            except KafkaException as error:
                return report(error.args[0], None)
            else:
                return None
        return None

    def _run(self) -> None:
        try:
            while not self.fault or self._rounds:
                self._producer.poll(LOOK_SECONDS)
        except KafkaException as error:
            self._give_up(self._unreachable(error.args[0]))
        self._producer.purge()
        # What was purged is reported, too, and leads back here until it is.
        self._producer.poll(0)

    def _on_report(self, answers: Answers, position: int, size: int, error: KafkaError | None, _: Any) -> None:
        if error is None:
            answers.give(position, DELIVERED)
        elif error.code() in REJECTED:
            answers.give(position, Rejected(f"{error.name()}: {error.str()} (it has {size:,} bytes)"))
        else:
            answers.give(position, self._unreachable(error))

    def _unreachable(self, error: KafkaError) -> Unreachable:
        """Take an error for an outage, and for the end of the producer unless it is silence."""
        is_silence = error.code() == KafkaError._MSG_TIMED_OUT
        said = f"no answer within {self._timeout_seconds:g} s" if is_silence else f"{error.name()}: {error.str()}"
        outage = Unreachable(f"{said}; {self._trouble.said}" if self._trouble.said else said)
        if not is_silence:
            self.fault = self.fault or outage
        return outage

    def _give_up(self, fault: Unreachable) -> None:
        """Wait for no answer any more."""
        with self._lock:
            self.fault = self.fault or fault
            rounds, self._rounds = self._rounds, set()
        for answers in rounds:
            answers.give_rest(self.fault)


class _Trouble:
    """What the producer last said of its brokers.

    Not of the feed's own: a producer that its callbacks lead back to ends when garbage is collected
    and not when it is let go of, with its threads and its connections.
    """

    said = ""

    def note(self, error: KafkaError) -> None:
        # That all brokers are down says less than why the last one is.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.said = error.str()
