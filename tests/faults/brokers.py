"""The brokers of the matrix: a Redis and a RabbitMQ of its own, each behind a proxy that can refuse connections."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from redis import Redis

from deploy.embedded import RedisServer
from tests.conformance.proxy import Proxy
from tests.proofs.cluster.partners import Received, received_in
from tests.support.rabbitmq import RabbitMQ, is_installed, rabbitmq

STREAM, QUEUE = "stream", "queue"

ROUTE = """
[[destination]]
name = "{name}"
url = "{url}"
events = ["booking.*"]
batch_size = {batch_size}
timeout_seconds = 5
"""


class Broker(Protocol):
    """Takes events in the format `envelope`, and remembers them."""

    @property
    def proxy(self) -> Proxy: ...

    @property
    def url(self) -> str: ...

    def received(self) -> Received: ...


@dataclass(frozen=True)
class Stream:
    """A stream of a Redis that nothing else uses: whoever empties the Redis of the cluster leaves it alone."""

    redis: Redis
    proxy: Proxy

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.proxy.port}/0?stream=bookings"

    def received(self) -> Received:
        entries: list[tuple[bytes, dict[bytes, bytes]]] = self.redis.xrange("bookings")  # type: ignore[assignment]
        return received_in(fields[b"body"].decode() for _, fields in entries)


@dataclass(frozen=True)
class Queue:
    """A queue of RabbitMQ. What was taken out of it is in `_taken`."""

    server: RabbitMQ
    exchange: str
    proxy: Proxy
    _taken: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.proxy.port}/?exchange={self.exchange}"

    def received(self) -> Received:
        self._taken.extend(message.body for message in self.server.take_all(self.exchange))
        return received_in(self._taken)


@contextmanager
def brokers(home: Path) -> Iterator[Mapping[str, Broker]]:
    """Start the brokers, by the names of their destinations. RabbitMQ is left out where it is not installed."""
    with ExitStack() as stack:
        yield {STREAM: stack.enter_context(_stream(home))} | (
            {QUEUE: stack.enter_context(_queue())} if is_installed() else {}
        )


def routes_to(brokers: Mapping[str, Broker], batch_size: int) -> str:
    """Return the routes to these brokers, as TOML."""
    return "".join(ROUTE.format(name=name, url=broker.url, batch_size=batch_size) for name, broker in brokers.items())


@contextmanager
def _stream(home: Path) -> Iterator[Stream]:
    server = RedisServer(home)
    with Redis.from_url(server.url) as redis, _proxy(server.url.removeprefix("unix://")) as proxy:
        try:
            yield Stream(redis, proxy)
        finally:
            server.stop()


@contextmanager
def _queue() -> Iterator[Queue]:
    server = rabbitmq()
    with _proxy(("127.0.0.1", server.port)) as proxy:
        yield Queue(server, server.an_exchange("booking.*"), proxy)


@contextmanager
def _proxy(server: tuple[str, int] | str) -> Iterator[Proxy]:
    proxy = Proxy(server)
    try:
        yield proxy
    finally:
        proxy.close()
