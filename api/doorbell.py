"""Waking a worker after a commit. It never fails a request and never slows one."""

import threading
from collections.abc import Callable

import structlog
from dramatiq import Broker, Message
from dramatiq.errors import ConnectionClosed, DramatiqError
from redis import RedisError

from api.health.routes import metrics

#: A worker that was just woken finds what commits in the next moment as well.
REST_SECONDS = 0.02

#: A broker that does not answer in this time is not heard.
TIMEOUT_SECONDS = 1.0

#: With this many rings waiting the workers are down or busy; one more tells them nothing.
ENOUGH_RINGS = 64

#: Rings between two looks at how many wait, while they are few.
LOOK_EVERY = 16

QUEUE = "holdfast"

log = structlog.get_logger()


class Doorbell:
    """Rings by sending one message to the actor `process_outbox`, at most one in 20 ms."""

    def __init__(self, broker_url: str) -> None:
        self._broker, self._waiting = _connect(broker_url)
        self._rung = threading.Event()
        self._closed = threading.Event()
        self.failures = 0
        self._rings = 0
        self._is_enough = False
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ring(self) -> None:
        """Have a worker woken soon. Returns at once."""
        self._rung.set()

    def is_heard(self) -> bool:
        """Tell whether the broker answers."""
        try:
            self._waiting()
        except _UNHEARD:
            return False
        return True

    def close(self) -> None:
        self._closed.set()
        self._rung.set()
        self._thread.join(TIMEOUT_SECONDS)
        self._broker.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._rung.wait()
            self._rung.clear()
            try:
                self._ring()
            except _UNHEARD as error:
                self.failures += 1
                metrics.UNHEARD.inc()
                log.warning("doorbell.unheard", failures=self.failures, error=type(error).__name__)
            self._closed.wait(REST_SECONDS)

    def _ring(self) -> None:
        self._rings += 1
        if self._is_enough or self._rings % LOOK_EVERY == 1:
            self._is_enough = self._waiting() >= ENOUGH_RINGS
        if not self._is_enough:
            message: Message[None] = Message(
                queue_name=QUEUE, actor_name="process_outbox", args=(), kwargs={}, options={}
            )
            self._broker.enqueue(message)


def _connect(url: str) -> tuple[Broker, Callable[[], int]]:
    """Return the broker, which connects when it is first used, and how to count the rings that wait."""
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker
        from pika.exceptions import AMQPError

        rabbitmq = RabbitmqBroker(url=url, middleware=[])

        def waiting() -> int:
            try:
                return int(rabbitmq.get_queue_message_counts(QUEUE)[0])
            except AMQPError as error:
                del rabbitmq.connection  # what is broken is not used again
                raise ConnectionClosed(error) from None

        return rabbitmq, waiting
    from dramatiq.brokers.redis import RedisBroker
    from redis import Redis

    client = Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
    redis = RedisBroker(client=client, middleware=[])
    return redis, lambda: redis.do_qsize(QUEUE)


#: What a broker that can't be reached raises; AMQP's errors are translated by Dramatiq or are OSErrors.
_UNHEARD = (RedisError, DramatiqError, OSError)
