"""The broker that brings wake-ups, as workers and scheduler connect to it."""

import logging
from collections.abc import Callable

from dramatiq import Broker, Middleware
from dramatiq.errors import ConnectionClosed, DramatiqError
from redis import RedisError

from domain.runtime.wakeups import DRAINING

#: A broker that does not answer in this time is down.
TIMEOUT_SECONDS = 5.0

#: A consumer of Redis polls, and backs off up to these times. The first is the latency of every lone event, and costs
#: 1% of a processor. Nobody waits for maintenance, and nothing is ever in the queues of delayed messages.
POLL_MILLISECONDS, POLL_OTHERS_MILLISECONDS = 20, 500

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
    from dramatiq import Consumer
    from dramatiq.brokers.redis import RedisBroker
    from redis import Redis

    class Polled(RedisBroker):
        """Dramatiq's broker, with a time between polls for each queue instead of one for all."""

        def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 0) -> Consumer:
            timeout = POLL_MILLISECONDS if queue_name == DRAINING else POLL_OTHERS_MILLISECONDS
            return super().consume(queue_name, prefetch, timeout)

    client = Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
    redis = Polled(client=client, middleware=middleware)  # type: ignore[no-untyped-call]
    # Not `do_qsize`: it also counts the messages that nobody can fetch any more, as when Redis has lost the list.
    return redis, lambda queue: int(client.llen(f"{redis.namespace}:{queue}"))
