"""All worlds, by name. `null:` has none: nobody can look at what it takes."""

from collections.abc import Mapping

from tests.conformance.amqp import AmqpWorld
from tests.conformance.harness import Trouble, World
from tests.conformance.kafka import KafkaWorld
from tests.conformance.log import LogWorld
from tests.conformance.redis import RedisWorld
from tests.conformance.sqs import FifoWorld, SqsWorld
from tests.conformance.webhook import WebhookWorld

WORLDS: Mapping[str, type[World]] = {
    "log": LogWorld,
    "webhook": WebhookWorld,
    "redis": RedisWorld,
    "sqs": SqsWorld,
    "sqs-fifo": FifoWorld,
    "amqp": AmqpWorld,
    "kafka": KafkaWorld,
}


def able(*troubles: Trouble) -> list[tuple[str, Trouble]]:
    """Return each world with each of these troubles that can happen to it."""
    return [(name, trouble) for name, world in WORLDS.items() for trouble in troubles if trouble not in world.cannot]
