"""The doorbell's other end: the broker that brings wake-ups, and nothing else."""

from collections.abc import Callable

from dramatiq import Broker, Middleware
from dramatiq.errors import ConnectionClosed, DramatiqError
from redis import RedisError

#: Wake-ups for draining, of which there may be many, and for tidying, which must not wait behind them.
DRAINS = "holdfast"
SWEEPS = "holdfast-sweeps"

#: With this many messages waiting the workers are down or busy; one more tells them nothing.
ENOUGH = 64

#: A broker that does not answer in this time is down.
TIMEOUT_SECONDS = 5.0

#: What a broker that is down raises.
DOWN = (RedisError, DramatiqError, OSError)


def connect(url: str, middleware: list[Middleware]) -> tuple[Broker, Callable[[str], int]]:
    """Return the broker, which connects when first used, and how to count the messages that wait in a queue.

    Dramatiq's usual middleware stays out: a row owns its retries, a message has none.
    """
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker
        from pika.exceptions import AMQPError

        rabbitmq = RabbitmqBroker(url=url, middleware=middleware)

        def waiting(queue: str) -> int:
            try:
                return int(rabbitmq.get_queue_message_counts(queue)[0])
            except AMQPError as error:
                del rabbitmq.connection  # what is broken is not used again
                raise ConnectionClosed(error) from None

        return rabbitmq, waiting
    from dramatiq.brokers.redis import RedisBroker
    from redis import Redis

    client = Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
    redis = RedisBroker(client=client, middleware=middleware)
    return redis, lambda queue: int(redis.do_qsize(queue))
