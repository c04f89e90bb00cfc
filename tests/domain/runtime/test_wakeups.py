"""Wake-ups: the API and the scheduler send them by the names of the actors that the workers have."""

from collections.abc import Iterator

import pytest
from dramatiq.brokers.redis import RedisBroker
from redis import Redis

from api.doorbell import Doorbell
from domain.runtime.settings import Settings
from domain.runtime.wakeups import DRAINING, ENOUGH_WAITING, PROCESS_OUTBOX, QUEUES
from tests.support.waiting import wait_until
from worker import broker, scheduler

#: The longest pause after which a consumer looks into an empty queue again.
PAUSE_MILLISECONDS = 50


@pytest.fixture
def redis_url(settings: Settings) -> Iterator[str]:
    """The URL of an empty database of the Redis of this test run."""
    url = f"{settings.redis_url}?db=1"
    with Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


def received(redis_url: str, queue: str) -> str:
    """Wait for a wake-up in a queue. Return the name of its actor."""
    consumer = RedisBroker(url=redis_url, middleware=[]).consume(queue, timeout=PAUSE_MILLISECONDS)
    try:
        # The consumer returns None each time that it finds the queue empty.
        message = wait_until(f"a wake-up is in the queue {queue!r}", lambda: next(consumer))
        consumer.ack(message)
        return str(message.actor_name)
    finally:
        consumer.close()


def test_the_workers_have_every_actor_in_its_queue(settings: Settings) -> None:
    from worker import actors  # reads the settings when it is imported

    assert {name: actor.queue_name for name, actor in actors.broker.actors.items()} == QUEUES


def test_the_doorbell_wakes_the_actor_that_drains_the_outbox(redis_url: str) -> None:
    doorbell = Doorbell(redis_url)
    doorbell.start()
    try:
        doorbell.wake()

        assert received(redis_url, DRAINING) == PROCESS_OUTBOX
    finally:
        doorbell.close()


def test_the_scheduler_wakes_every_actor() -> None:
    assert scheduler.EVERY.keys() == QUEUES.keys()


@pytest.mark.parametrize("actor", QUEUES)
def test_the_scheduler_wakes_an_actor_in_its_queue(redis_url: str, actor: str) -> None:
    scheduler.wake(*broker.connect(redis_url, []), actor)

    assert received(redis_url, QUEUES[actor]) == actor


@pytest.mark.parametrize("actor", QUEUES)
def test_the_scheduler_sends_no_wake_up_when_enough_of_them_wait(redis_url: str, actor: str) -> None:
    connected, waiting = broker.connect(redis_url, [])

    for _ in range(ENOUGH_WAITING + 3):
        scheduler.wake(connected, waiting, actor)

    assert waiting(QUEUES[actor]) == ENOUGH_WAITING
