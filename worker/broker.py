"""The doorbell's other end: the broker that brings wake-ups, and nothing else."""

from collections.abc import Callable

from dramatiq import Broker, Middleware
from dramatiq.errors import DramatiqError
from redis import RedisError

QUEUE = "holdfast"

#: With this many messages waiting the workers are down or busy; one more tells them nothing.
ENOUGH = 64

#: A broker that does not answer in this time is down.
TIMEOUT_SECONDS = 5.0

#: What a broker that is down raises.
DOWN = (RedisError, DramatiqError, OSError)


def connect(url: str, middleware: list[Middleware]) -> tuple[Broker, Callable[[], int]]:
    """Return the broker, which connects when first used, and how to count the messages that wait.

    Dramatiq's usual middleware stays out: a row owns its retries, a message has none.
    """
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        rabbitmq = RabbitmqBroker(url=url, middleware=middleware)
        return rabbitmq, lambda: rabbitmq.get_queue_message_counts(QUEUE)[0]
    from dramatiq.brokers.redis import RedisBroker
    from redis import Redis

    client = Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
    redis = RedisBroker(client=client, middleware=middleware)
    return redis, lambda: int(redis.do_qsize(QUEUE))
