"""The doorbell: waking a worker after a commit. It never fails a request and never slows one."""

import threading
from collections.abc import Callable

import structlog
from dramatiq import Broker, Message
from dramatiq.errors import ConnectionClosed, DramatiqError
from redis import RedisError

from domain.runtime.metrics import Counter
from domain.runtime.wakeups import DRAINING, ENOUGH_WAITING, PROCESS_OUTBOX

#: The shortest time between two wake-ups: a worker that was just woken also finds what commits in the next moment.
REST_SECONDS = 0.02

#: A broker that does not answer within this time counts as unreachable.
TIMEOUT_SECONDS = 1.0

#: While few wake-ups wait in the queue, they are counted at every sixteenth one only.
COUNT_EVERY = 16

WAKEUPS_FAILED = Counter(
    "holdfast_doorbell_wakeups_failed",
    "Wake-ups of workers that the broker did not accept, so that events are delivered later."
    " Alert if it increases for a minute.",
)

log = structlog.get_logger()


class Doorbell:
    """Sends wake-ups to the actor `process_outbox` from a thread of its own, at most one in 20 ms."""

    def __init__(self, broker_url: str) -> None:
        self._broker, self._waiting = _connect(broker_url)
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self.failures = 0
        self._wakeups = 0
        self._is_enough = False
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)

    def start(self) -> None:
        """Begin to send wake-ups."""
        self._thread.start()

    def wake(self) -> None:
        """Have a worker woken soon. Returns at once."""
        self._wanted.set()

    def is_reachable(self) -> bool:
        """Return whether the broker answers."""
        try:
            self._waiting()
        except _BROKER_ERRORS:
            return False
        return True

    def close(self) -> None:
        """Stop sending wake-ups, and disconnect."""
        self._closed.set()
        self._wanted.set()
        self._thread.join(TIMEOUT_SECONDS)
        self._broker.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wanted.wait()
            self._wanted.clear()
            try:
                self._wake()
            except _BROKER_ERRORS as error:
                self.failures += 1
                WAKEUPS_FAILED.inc()
                log.warning("doorbell.wakeup_failed", failures=self.failures, error=type(error).__name__)
            self._closed.wait(REST_SECONDS)

    def _wake(self) -> None:
        self._wakeups += 1
        if self._is_enough or self._wakeups % COUNT_EVERY == 1:
            self._is_enough = self._waiting() >= ENOUGH_WAITING
        if not self._is_enough:
            message: Message[None] = Message(
                queue_name=DRAINING, actor_name=PROCESS_OUTBOX, args=(), kwargs={}, options={}
            )
            self._broker.enqueue(message)


def _connect(url: str) -> tuple[Broker, Callable[[], int]]:
    """Return the broker, which connects when it is first used, and a function that counts the waiting wake-ups."""
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker
        from pika.exceptions import AMQPError

        rabbitmq = RabbitmqBroker(url=url, middleware=[])

        def waiting() -> int:
            try:
                return int(rabbitmq.get_queue_message_counts(DRAINING)[0])
            except AMQPError as error:
                del rabbitmq.connection  # a broken connection is not used again
                raise ConnectionClosed(error) from None

        return rabbitmq, waiting
    from dramatiq.brokers.redis import RedisBroker
    from redis import Redis

    client = Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)
    redis = RedisBroker(client=client, middleware=[])
    # Not `do_qsize`: it also counts the messages that nobody can fetch any more, as when Redis has lost the list.
    return redis, lambda: int(client.llen(f"{redis.namespace}:{DRAINING}"))


#: What an unreachable broker raises. Dramatiq translates the errors of AMQP, or they are OSErrors.
_BROKER_ERRORS = (RedisError, DramatiqError, OSError)
