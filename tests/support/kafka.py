"""A Kafka for tests: librdkafka's mock cluster, driven through librdkafka's C interface.

confluent_kafka installs librdkafka, but it has no functions that make the mock cluster fail.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.support.requirements import required
from tests.support.waiting import PATIENCE_SECONDS

PRODUCER = 0

#: The only broker of a cluster.
BROKER = 1

#: The number of the request "produce" in Kafka's protocol.
PRODUCE = 0

PARTITIONS = 4


@dataclass(frozen=True)
class Message:
    """A message in a topic."""

    body: str
    key: str
    headers: dict[str, str]
    timestamp: int


class MockCluster:
    """One broker. Tests read back what was produced, and set the errors that it answers with."""

    def __init__(self) -> None:
        self._library = _library()
        error = ctypes.create_string_buffer(512)
        self._handle = self._library.rd_kafka_new(PRODUCER, None, error, len(error))
        assert self._handle, error.value
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, 1)
        self.address: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def a_topic(self, name: str) -> None:
        assert self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), PARTITIONS, 1) == 0

    def answers(self, *errors: int) -> None:
        """Answer the next requests to produce with these errors, one error a request."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, PRODUCE, len(errors), array)

    def recovers(self) -> None:
        """Answer all requests without these errors from now on."""
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, PRODUCE)

    def refuses(self, topic: str, error: int = KafkaError.NO_ERROR) -> None:
        """Answer every request about a topic with this error; without an error, answer them normally again."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), error)

    def stop(self) -> None:
        self._library.rd_kafka_mock_broker_set_down(self._cluster, BROKER)

    def start(self) -> None:
        self._library.rd_kafka_mock_broker_set_up(self._cluster, BROKER)

    def messages(self, topic: str) -> list[Message]:
        """Return all messages of a topic, in order within each partition."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "tests", "log_level": 0})
        try:
            parts = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
            ends = [consumer.get_watermark_offsets(part, PATIENCE_SECONDS)[1] for part in parts]
            consumer.assign(parts)
            messages: list[Any] = []
            while len(messages) < sum(ends):
                found = consumer.consume(sum(ends) - len(messages), PATIENCE_SECONDS)
                assert found, "the messages did not arrive"
                messages += found
            return [_message(message) for message in messages]
        finally:
            consumer.close()

    def produced(self, topic: str) -> int:
        """Return how many messages were ever written to a topic."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "tests", "log_level": 0})
        try:
            parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            return sum(consumer.get_watermark_offsets(part, PATIENCE_SECONDS)[1] for part in parts)
        finally:
            consumer.close()

    def close(self) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)


def _message(message: Any) -> Message:
    assert message.error() is None, message.error()
    headers = {name: value.decode() for name, value in message.headers() or ()}
    return Message(message.value().decode(), message.key().decode(), headers, message.timestamp()[1])


@cache
def _library() -> ctypes.CDLL:
    """Load the librdkafka that confluent_kafka itself has loaded, and declare which values are pointers."""
    found = _candidates()
    required("librdkafka beside confluent_kafka", bool(found), "librdkafka1")
    library = ctypes.CDLL(str(found[0]))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_destroy.argtypes = [pointer]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, ctypes.c_int]
    library.rd_kafka_mock_cluster_destroy.argtypes = [pointer]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, ctypes.c_int, ctypes.c_int]
    library.rd_kafka_mock_topic_set_error.argtypes = [pointer, text, ctypes.c_int]
    library.rd_kafka_mock_push_request_errors_array.argtypes = [pointer, ctypes.c_int16, ctypes.c_size_t, pointer]
    library.rd_kafka_mock_clear_request_errors.argtypes = [pointer, ctypes.c_int16]
    library.rd_kafka_mock_broker_set_down.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_broker_set_up.argtypes = [pointer, ctypes.c_int32]
    return library


def _candidates() -> Sequence[Path]:
    package = Path(confluent_kafka.__file__).parent
    return list(package.with_name("confluent_kafka.libs").glob("librdkafka*.so*"))
