"""All harnesses, by name. `null:` has none, because nobody can examine what it takes."""

from collections.abc import Mapping

from tests.conformance.amqp import AmqpHarness
from tests.conformance.feed import FeedHarness
from tests.conformance.harness import Harness, Trouble
from tests.conformance.kafka import KafkaHarness
from tests.conformance.log import LogHarness
from tests.conformance.redis import RedisHarness
from tests.conformance.sqs import FifoHarness, SqsHarness
from tests.conformance.webhook import WebhookHarness

HARNESSES: Mapping[str, type[Harness]] = {
    "log": LogHarness,
    "feed": FeedHarness,
    "webhook": WebhookHarness,
    "redis": RedisHarness,
    "sqs": SqsHarness,
    "sqs-fifo": FifoHarness,
    "amqp": AmqpHarness,
    "kafka": KafkaHarness,
}


def possible(*troubles: Trouble) -> list[tuple[str, Trouble]]:
    """Return the name of each harness with each of these troubles that can happen there."""
    return [
        (name, trouble)
        for name, harness in HARNESSES.items()
        for trouble in troubles
        if trouble not in harness.impossible
    ]
