"""The broker that brings wake-ups, as workers and scheduler connect to it."""

import logging
from collections.abc import Callable

from dramatiq import Broker, Middleware
from dramatiq.errors import ConnectionClosed, DramatiqError
from redis import RedisError

#: A broker that does not answer in this time is down.
TIMEOUT_SECONDS = 5.0

#: The errors of a broker that is down.
DOWN = (RedisError, DramatiqError, OSError)


def connect(url: str, middleware: list[Middleware]) -> tuple[Broker, Callable[[str], int]]:
    """Return the broker, which connects when it is first used, and a function that counts the messages in a queue.

    Dramatiq's usual middleware is left out: the row owns its retries, and a message has none.
    """
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker
        from pika.exceptions import AMQPError

        # Dramatiq reports what pika raises; pika would log it as well, in many lines.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        rabbitmq = RabbitmqBroker(url=url, middleware=middleware)

        def waiting(queue: str) -> int:
            try:
                return int(rabbitmq.get_queue_message_counts(queue)[0])
            except AMQPError as error:
                del rabbitmq.connection  # a broken connection is not used again
                raise ConnectionClosed(error) from None

        return rabbitmq, waiting
    from dramatiq.brokers.redis import RedisBroker
    from redis import Redis

    client = Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
    redis = RedisBroker(client=client, middleware=middleware)
    # Not `do_qsize`: it also counts the messages that nobody can fetch any more, as when Redis has lost the list.
    return redis, lambda queue: int(client.llen(f"{redis.namespace}:{queue}"))
