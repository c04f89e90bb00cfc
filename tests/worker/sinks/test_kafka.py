"""`kafka://`: what a message contains, and what each answer of a broker means for a row."""

import gc
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import KafkaError

from domain.outbox import Delivered, NotSent, Outcome, Rejected, Route, Row, Unreachable
from domain.runtime.errors import ConfigurationError
from tests.support.builders import some_settings
from tests.support.kafka import MockCluster
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from worker.ordering.pace import Pace
from worker.sinks.kafka.producer import TopicProducer
from worker.sinks.kafka.sink import Kafka

pytestmark = pytest.mark.slow

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

TOPIC = "bookings"

#: The size of a message that librdkafka allows by default.
MESSAGE_MAX_BYTES = 1_000_000

#: A short time-out, for brokers that do not answer.
SHORT_SECONDS = 0.5

#: More requests than librdkafka makes for a few messages.
ALL_REQUESTS = 50

Open = Callable[..., Kafka]


def a_row(payload: str = "{}", aggregate: UUID | None = None, headers: str = "{}") -> Row:
    event_id = uuid4()
    return Row(
        event_id.int, event_id, aggregate or uuid4(), "booking.created", payload, headers, 0, NOON, None, None, NOON
    )


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    cluster = MockCluster()
    cluster.a_topic(TOPIC)
    yield cluster
    cluster.close()


@pytest.fixture
def open_kafka() -> Iterator[Open]:
    """Open sinks with these URLs. They are closed after the test."""
    with ExitStack() as stack:

        def opened(url: str, **route: object) -> Kafka:
            sink = Kafka(Route.model_validate({"name": "bookings", "url": url} | route), some_settings(), Pace(Event()))
            stack.callback(sink.close)
            return sink

        yield opened


def url_of(cluster: MockCluster, options: str = "") -> str:
    return f"kafka://{cluster.address}/{TOPIC}{options}"


def connected(kafka: Kafka) -> Kafka:
    """Deliver a first message, since connecting may take longer than a batch has."""
    assert kafka.deliver([a_row()]) == [Delivered()]
    return kafka


def events(cluster: MockCluster) -> list[str]:
    return [message.headers["event_id"] for message in cluster.messages(TOPIC)]


def test_a_message_has_everything_that_a_consumer_needs(cluster: MockCluster, open_kafka: Open) -> None:
    row = a_row(headers='{"correlation_id": "c-1"}')

    outcomes = open_kafka(url_of(cluster)).deliver([row])

    assert outcomes == [Delivered()]
    (message,) = cluster.messages(TOPIC)
    assert message.key == str(row.aggregate_id)
    assert message.headers == {
        "event_id": str(row.event_id),
        "event_type": "booking.created",
        "content-type": "application/json",
        "X-Request-Id": "c-1",
    }
    assert message.timestamp == NOON.timestamp() * 1_000
    assert json.loads(message.body)["event_id"] == str(row.event_id)


def test_messages_of_an_aggregate_arrive_in_order_while_several_threads_deliver(
    cluster: MockCluster, open_kafka: Open
) -> None:
    kafka = connected(open_kafka(url_of(cluster)))
    aggregates = [uuid4() for _ in range(40)]
    batches = [[a_row(aggregate=one) for _ in range(5) for one in aggregates[number::4]] for number in range(4)]
    outcomes: list[Outcome] = []
    threads = [Thread(target=lambda rows=rows: outcomes.extend(kafka.deliver(rows))) for rows in batches]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes == [Delivered()] * 200
    taken = cluster.messages(TOPIC)
    assert len(taken) == 201
    for row in (row for batch in batches for row in batch):
        of_it = [message.headers["event_id"] for message in taken if message.key == str(row.aggregate_id)]
        assert of_it == [
            str(one.event_id) for batch in batches for one in batch if one.aggregate_id == row.aggregate_id
        ]


def test_a_message_that_is_too_large_is_rejected_alone_and_its_error_names_the_size(
    cluster: MockCluster, open_kafka: Open
) -> None:
    large = a_row(json.dumps("x" * MESSAGE_MAX_BYTES))

    outcomes = open_kafka(url_of(cluster)).deliver([a_row(), large, a_row()])

    assert [type(outcome) for outcome in outcomes] == [Delivered, Rejected, Delivered]
    assert "MSG_SIZE_TOO_LARGE" in str(outcomes[1]) and "it has 1,000,1" in str(outcomes[1])


def test_the_url_can_set_the_largest_size_of_a_message(cluster: MockCluster, open_kafka: Open) -> None:
    kafka = open_kafka(url_of(cluster, "?message.max.bytes=2000"))

    outcomes = kafka.deliver([a_row(json.dumps("x" * 2_000)), a_row()])

    assert [type(outcome) for outcome in outcomes] == [Rejected, Delivered]


def test_the_good_messages_of_a_refused_batch_are_delivered_one_by_one(cluster: MockCluster, open_kafka: Open) -> None:
    rows = [a_row() for _ in range(20)]
    cluster.answers(KafkaError.MSG_SIZE_TOO_LARGE)

    outcomes = open_kafka(url_of(cluster)).deliver(rows)

    assert outcomes == [Delivered()] * 20
    assert sorted(events(cluster)) == sorted(str(row.event_id) for row in rows)


@pytest.mark.parametrize("error", ["MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_TIMESTAMP"])
def test_a_message_that_the_broker_refuses_alone_as_well_is_rejected(
    cluster: MockCluster, open_kafka: Open, error: str
) -> None:
    kafka = open_kafka(url_of(cluster))
    row = a_row()
    cluster.answers(getattr(KafkaError, error), getattr(KafkaError, error))

    (outcome,) = kafka.deliver([row])

    assert isinstance(outcome, Rejected) and outcome.error.startswith(error)
    assert kafka.deliver([a_row(aggregate=row.aggregate_id)]) == [Delivered()]


@pytest.mark.parametrize(
    "error",
    [
        "TOPIC_AUTHORIZATION_FAILED",
        "CLUSTER_AUTHORIZATION_FAILED",
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
        "INVALID_PRODUCER_EPOCH",
        "POLICY_VIOLATION",
        "UNKNOWN",
    ],
)
def test_every_other_error_of_a_broker_is_an_outage_and_no_message_overtakes_another(
    cluster: MockCluster, open_kafka: Open, error: str
) -> None:
    kafka = open_kafka(url_of(cluster))
    aggregate = uuid4()
    rows = [a_row(aggregate=aggregate), a_row(aggregate=aggregate)]
    cluster.answers(*[getattr(KafkaError, error)] * ALL_REQUESTS)

    first, second = kafka.deliver(rows)

    assert isinstance(first, Unreachable) and error in first.error
    assert second == NotSent()
    cluster.recovers()
    for row in rows:
        assert kafka.deliver([row]) == [Delivered()]
    assert events(cluster) == [str(row.event_id) for row in rows]


@pytest.mark.parametrize("error", ["NOT_LEADER_FOR_PARTITION", "NOT_ENOUGH_REPLICAS", "REQUEST_TIMED_OUT"])
def test_an_error_that_passes_by_itself_is_waited_for(cluster: MockCluster, open_kafka: Open, error: str) -> None:
    cluster.answers(getattr(KafkaError, error))

    assert open_kafka(url_of(cluster)).deliver([a_row()]) == [Delivered()]


def test_a_missing_topic_is_an_outage_until_it_is_there(cluster: MockCluster, open_kafka: Open) -> None:
    cluster.refuses(TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART)
    kafka = open_kafka(url_of(cluster), timeout_seconds=SHORT_SECONDS)
    row = a_row()
    (outcome,) = kafka.deliver([row])
    assert isinstance(outcome, Unreachable)

    cluster.refuses(TOPIC)

    wait_until("the row is delivered", lambda: kafka.deliver([row]) == [Delivered()])


def test_a_refused_connection_is_an_outage_with_its_reason(open_kafka: Open) -> None:
    kafka = open_kafka(f"kafka://127.0.0.1:{free_port()}/{TOPIC}", timeout_seconds=SHORT_SECONDS)

    (outcome,) = kafka.deliver([a_row()])

    assert isinstance(outcome, Unreachable) and "Connection refused" in outcome.error


def test_a_message_that_timed_out_is_not_sent_later(cluster: MockCluster, open_kafka: Open) -> None:
    kafka = open_kafka(url_of(cluster), timeout_seconds=SHORT_SECONDS)
    first = a_row()
    wait_until("the first row is delivered", lambda: kafka.deliver([first]) == [Delivered()])
    cluster.stop()
    assert [type(outcome) for outcome in kafka.deliver([a_row()])] == [Unreachable]
    cluster.start()

    last = a_row()
    wait_until("the last row is delivered", lambda: kafka.deliver([last]) == [Delivered()])

    assert set(events(cluster)) == {str(first.event_id), str(last.event_id)}


def test_a_full_queue_is_waited_for(cluster: MockCluster, open_kafka: Open) -> None:
    kafka = open_kafka(url_of(cluster, "?queue.buffering.max.messages=10"))

    assert kafka.deliver([a_row() for _ in range(100)]) == [Delivered()] * 100


def test_a_queue_that_stays_full_is_an_outage(open_kafka: Open) -> None:
    url = f"kafka://127.0.0.1:{free_port()}/{TOPIC}?queue.buffering.max.messages=2"

    outcomes = open_kafka(url, timeout_seconds=SHORT_SECONDS).deliver([a_row() for _ in range(5)])

    assert [type(outcome) for outcome in outcomes] == [Unreachable] * 5


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("kafka://127.0.0.1:9092", "needs the topic"),
        ("kafka://127.0.0.1:9092/", "needs the topic"),
        ("kafka://127.0.0.1:9092/a/b", "needs the topic"),
        ("kafka:///bookings", "must name a broker"),
        ("kafka://user:secret@127.0.0.1:9092/bookings", "sasl.username"),
        ("kafka://127.0.0.1:9092/bookings?acks=1", "acks can't be an option of the URL"),
        (
            "kafka://127.0.0.1:9092/bookings?enable.idempotence=false",
            "enable.idempotence can't be an option",
        ),
        ("kafka://127.0.0.1:9092/bookings?error_cb=x", "'error_cb' is no option"),
        ("kafka://127.0.0.1:9092/bookings?linger.ms=1&linger.ms=2", "given twice"),
        ("kafka://127.0.0.1:9092/bookings?nonsense=1", 'No such configuration property: "nonsense"'),
        ("kafka://127.0.0.1:9092/bookings?security.protocol=SECRET", 'Invalid value "SECRET"'),
        ("kafka://127.0.0.1:9092/bookings?security.protocol=ssl&ssl.ca.location=/nowhere", "ssl.ca.location failed"),
        ("kafka://127.0.0.1:9092/bookings?max.in.flight=100", "max.in.flight"),
    ],
)
def test_a_url_that_can_not_be_used_is_refused_with_the_reason(open_kafka: Open, url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        open_kafka(url)

    message = str(error.value)
    assert message.startswith("HOLDFAST_ROUTES: destination 'bookings': ") and reason in message


def test_a_plus_in_a_password_stays_a_plus(open_kafka: Open) -> None:
    kafka = open_kafka("kafka://127.0.0.1:9092/bookings?sasl.password=a+b%26c")

    assert kafka._properties["sasl.password"] == "a+b&c"


def test_a_producer_that_has_ended_keeps_no_thread_and_no_connection() -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    properties: dict[str, Any] = {
        "bootstrap.servers": f"127.0.0.1:{free_port()}",
        "enable.idempotence": True,
        "acks": "all",
    }
    gc.disable()
    try:
        before = threads()
        for _ in range(3):
            producer = TopicProducer(properties, TOPIC, SHORT_SECONDS)
            producer.close()
            del producer
        wait_until("the threads have ended", lambda: threads() <= before)
    finally:
        gc.enable()
