"""Kafka as a destination: what it is told, and what its answers mean."""

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

from domain.outbox import Delivered, Held, Outcome, Rejected, Row, Unreachable
from domain.outbox.routes import Route
from tests.proofs.processes import free_port
from tests.support.builders import some_settings, wait_until
from tests.support.kafka import MockCluster
from worker.sinks.kafka.producer import Feed
from worker.sinks.kafka.sink import Kafka

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)

TOPIC = "bookings"

#: librdkafka's own limit.
MESSAGE_MAX_BYTES = 1_000_000

#: Short, where nobody answers.
SHORT_SECONDS = 0.5

#: More than librdkafka makes of one round of a few messages.
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
    """Open destinations of these URLs. They are closed after the test."""
    with ExitStack() as stack:

        def opened(url: str, **route: object) -> Kafka:
            destination = Kafka(
                Route.model_validate({"name": "bookings", "url": url} | route), some_settings(), Event()
            )
            stack.callback(destination.close)
            return destination

        yield opened


def url_of(cluster: MockCluster, options: str = "") -> str:
    return f"kafka://{cluster.address}/{TOPIC}{options}"


def connected(kafka: Kafka) -> Kafka:
    """Deliver a first message: to connect may take longer than a batch has."""
    assert kafka.deliver([a_row()]) == [Delivered()]
    return kafka


def events(cluster: MockCluster) -> list[str]:
    return [message.headers["event_id"] for message in cluster.taken(TOPIC)]


def test_a_message_says_all_that_a_consumer_needs(cluster: MockCluster, open_kafka: Open) -> None:
    row = a_row(headers='{"correlation_id": "c-1"}')

    outcomes = open_kafka(url_of(cluster)).deliver([row])

    assert outcomes == [Delivered()]
    (message,) = cluster.taken(TOPIC)
    assert message.key == str(row.aggregate_id)
    assert message.headers == {
        "event_id": str(row.event_id),
        "event_type": "booking.created",
        "content-type": "application/json",
        "X-Request-Id": "c-1",
    }
    assert message.timestamp == NOON.timestamp() * 1_000
    assert json.loads(message.body)["event_id"] == str(row.event_id)


def test_messages_of_an_aggregate_arrive_in_order_from_several_threads(cluster: MockCluster, open_kafka: Open) -> None:
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
    taken = cluster.taken(TOPIC)
    assert len(taken) == 201
    for row in (row for batch in batches for row in batch):
        of_it = [message.headers["event_id"] for message in taken if message.key == str(row.aggregate_id)]
        assert of_it == [
            str(one.event_id) for batch in batches for one in batch if one.aggregate_id == row.aggregate_id
        ]


def test_a_message_over_the_limit_dies_alone_and_says_its_size(cluster: MockCluster, open_kafka: Open) -> None:
    large = a_row(json.dumps("x" * MESSAGE_MAX_BYTES))

    outcomes = open_kafka(url_of(cluster)).deliver([a_row(), large, a_row()])

    assert [type(outcome) for outcome in outcomes] == [Delivered, Rejected, Delivered]
    assert "MSG_SIZE_TOO_LARGE" in str(outcomes[1]) and "it has 1,000,1" in str(outcomes[1])


def test_the_limit_can_be_set(cluster: MockCluster, open_kafka: Open) -> None:
    kafka = open_kafka(url_of(cluster, "?message.max.bytes=2000"))

    outcomes = kafka.deliver([a_row(json.dumps("x" * 2_000)), a_row()])

    assert [type(outcome) for outcome in outcomes] == [Rejected, Delivered]


def test_messages_of_a_refused_batch_that_are_good_go_by_themselves(cluster: MockCluster, open_kafka: Open) -> None:
    rows = [a_row() for _ in range(20)]
    cluster.answers(KafkaError.MSG_SIZE_TOO_LARGE)

    outcomes = open_kafka(url_of(cluster)).deliver(rows)

    assert outcomes == [Delivered()] * 20
    assert sorted(events(cluster)) == sorted(str(row.event_id) for row in rows)


@pytest.mark.parametrize("error", ["MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_TIMESTAMP"])
def test_a_message_that_the_broker_refuses_alone_too_is_rejected(
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
def test_whatever_else_the_broker_says_is_an_outage_and_nothing_overtakes(
    cluster: MockCluster, open_kafka: Open, error: str
) -> None:
    kafka = open_kafka(url_of(cluster))
    aggregate = uuid4()
    rows = [a_row(aggregate=aggregate), a_row(aggregate=aggregate)]
    cluster.answers(*[getattr(KafkaError, error)] * ALL_REQUESTS)

    first, second = kafka.deliver(rows)

    assert isinstance(first, Unreachable) and error in first.error
    assert second == Held()
    cluster.is_well()
    for row in rows:
        assert kafka.deliver([row]) == [Delivered()]
    assert events(cluster) == [str(row.event_id) for row in rows]


@pytest.mark.parametrize("error", ["NOT_LEADER_FOR_PARTITION", "NOT_ENOUGH_REPLICAS", "REQUEST_TIMED_OUT"])
def test_what_passes_by_itself_is_waited_for(cluster: MockCluster, open_kafka: Open, error: str) -> None:
    cluster.answers(getattr(KafkaError, error))

    assert open_kafka(url_of(cluster)).deliver([a_row()]) == [Delivered()]


def test_a_missing_topic_is_an_outage_until_it_is_there(cluster: MockCluster, open_kafka: Open) -> None:
    cluster.refuses(TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART)
    kafka = open_kafka(url_of(cluster), timeout_seconds=SHORT_SECONDS)
    row = a_row()
    (outcome,) = kafka.deliver([row])
    assert isinstance(outcome, Unreachable)

    cluster.refuses(TOPIC)

    wait_until(lambda: kafka.deliver([row]) == [Delivered()])


def test_nobody_there_is_an_outage_with_its_reason(open_kafka: Open) -> None:
    kafka = open_kafka(f"kafka://127.0.0.1:{free_port()}/{TOPIC}", timeout_seconds=SHORT_SECONDS)

    (outcome,) = kafka.deliver([a_row()])

    assert isinstance(outcome, Unreachable) and "Connection refused" in outcome.error


def test_what_was_given_up_is_not_sent_behind_our_back(cluster: MockCluster, open_kafka: Open) -> None:
    kafka = open_kafka(url_of(cluster), timeout_seconds=SHORT_SECONDS)
    first = a_row()
    wait_until(lambda: kafka.deliver([first]) == [Delivered()])
    cluster.stop()
    assert [type(outcome) for outcome in kafka.deliver([a_row()])] == [Unreachable]
    cluster.start()

    last = a_row()
    wait_until(lambda: kafka.deliver([last]) == [Delivered()])

    assert set(events(cluster)) == {str(first.event_id), str(last.event_id)}


def test_a_full_queue_is_waited_for(cluster: MockCluster, open_kafka: Open) -> None:
    kafka = open_kafka(url_of(cluster, "?queue.buffering.max.messages=10"))

    assert kafka.deliver([a_row() for _ in range(100)]) == [Delivered()] * 100


def test_a_full_queue_that_does_not_empty_is_an_outage(open_kafka: Open) -> None:
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
        ("kafka://127.0.0.1:9092/bookings?acks=1", "acks is not for the URL to say"),
        ("kafka://127.0.0.1:9092/bookings?enable.idempotence=false", "not for the URL to say"),
        ("kafka://127.0.0.1:9092/bookings?error_cb=x", "'error_cb' is no option"),
        ("kafka://127.0.0.1:9092/bookings?linger.ms=1&linger.ms=2", "given twice"),
        ("kafka://127.0.0.1:9092/bookings?nonsense=1", 'No such configuration property: "nonsense"'),
        ("kafka://127.0.0.1:9092/bookings?security.protocol=SECRET", 'Invalid value "SECRET"'),
        ("kafka://127.0.0.1:9092/bookings?security.protocol=ssl&ssl.ca.location=/nowhere", "ssl.ca.location failed"),
        ("kafka://127.0.0.1:9092/bookings?max.in.flight=100", "max.in.flight"),
    ],
)
def test_a_url_that_can_not_be_meant_keeps_the_worker_from_starting(
    open_kafka: Open, capsys: pytest.CaptureFixture[str], url: str, reason: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        open_kafka(url)

    assert refused.value.code == 2
    said = capsys.readouterr().err
    assert "HOLDFAST_ROUTES: destination 'bookings'" in said and reason in said


def test_a_secret_with_a_plus_is_handed_on_as_it_is(open_kafka: Open) -> None:
    kafka = open_kafka("kafka://127.0.0.1:9092/bookings?sasl.password=a+b%26c")

    assert kafka._properties["sasl.password"] == "a+b&c"


def test_a_feed_that_has_ended_keeps_no_thread_and_no_connection() -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    nobody: dict[str, Any] = {
        "bootstrap.servers": f"127.0.0.1:{free_port()}",
        "enable.idempotence": True,
        "acks": "all",
    }
    gc.disable()
    try:
        before = threads()
        for _ in range(3):
            feed = Feed(nobody, TOPIC, SHORT_SECONDS)
            feed.close()
            del feed
        wait_until(lambda: threads() <= before)
    finally:
        gc.enable()
