"""To real servers: how many events a second one worker process sends, each answered for before it is settled."""

import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import httpx
from redis import Redis

from benchmarks import draining
from benchmarks.environment import Stage, wait_until
from benchmarks.measure import Measure, median
from deploy.embedded import RedisServer

# The tests' own servers: starting, asking and ending each takes a hundred lines, which a copy would only repeat.
from tests.support.kafka import MockCluster
from tests.support.rabbitmq import RabbitMQ, is_installed

NAME = "sink"

#: The same events as drain to null:, for another destination.
FILL = draining.FILL.replace("'null'", f"'{NAME}'")

REGION = "eu-west-1"

#: Whose queues moto keeps, unless it is told.
ACCOUNT = "123456789012"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A server out there: its URL, what a worker's environment needs for it, and how many events it has."""

    url: str
    arrived: Callable[[], int]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sink:
    """What is measured. `opened` starts a server that is empty, and ends it; without a budget it is only reported."""

    what: str
    opened: Callable[[Stage], AbstractContextManager[Place]]
    events: int
    rounds: int
    budget: int | None = None


def sinks(stage: Stage) -> Iterator[Measure]:
    for sink in SINKS:
        if sink is RABBITMQ and not is_installed():
            yield Measure(what=f"events/s to {sink.what}", figure="not measured: apt-get install rabbitmq-server")
            continue
        figure = median([_rate(stage, sink) for _ in range(sink.rounds)])
        yield Measure(
            what=f"events/s to {sink.what}, one worker process, ordered and fenced",
            figure=f"{figure:,.0f}",
            budget=f"≥ {sink.budget:,}" if sink.budget else "",
            met=figure >= sink.budget if sink.budget else None,
        )


def _rate(stage: Stage, sink: Sink) -> float:
    """Return the events/s of one run, by the database's clock."""
    _fill(stage, sink.events)
    with tempfile.TemporaryDirectory() as folder, sink.opened(stage) as place, stage.connect() as connection:
        routes = Path(folder, "routes.toml")
        routes.write_text(f'[[destination]]\nname = "{NAME}"\nurl = "{place.url}"\n')
        environment = {"HOLDFAST_ROUTES": str(routes), "CONFIRMATION_URL": "", **place.environment}
        worker = stage.running("bin/worker", "--processes", "1", "--threads", "4", **environment)
        with worker, stage.running("bin/scheduler", **environment):
            wait_until(lambda: not _is_left(stage), seconds=300)
        if place.arrived() < sink.events:
            raise RuntimeError(f"{sink.what}: of {sink.events} events {place.arrived()} have arrived.")
        took = connection.execute(
            "SELECT extract(epoch FROM max(processed_at) - min(processed_at))::float FROM outbox"
        ).fetchone()
    assert took is not None
    return sink.events / float(str(took[0]))


def _fill(stage: Stage, events: int) -> None:
    stage.clear()
    with stage.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(FILL, {"events": events, "aggregates": events // 5})
        connection.execute("VACUUM (ANALYZE) outbox")
        connection.execute("CHECKPOINT")


def _is_left(stage: Stage) -> bool:
    time.sleep(0.1)  # looking more often would slow the drain
    with stage.connect() as connection:
        found = connection.execute(
            "SELECT EXISTS (SELECT FROM outbox WHERE processed_at IS NULL AND dead_at IS NULL)"
        ).fetchone()
    return bool(found and found[0])


@contextmanager
def _redis(_: Stage) -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        try:
            with Redis.from_url(server.url) as client:
                yield Place(url=f"{server.url}?stream=bookings", arrived=lambda: int(str(client.xlen("bookings"))))
        finally:
            server.stop()


@contextmanager
def _sqs(stage: Stage) -> Iterator[Place]:
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ACCESS_KEY_ID": "moto",
        "AWS_SECRET_ACCESS_KEY": "moto",
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_SQS": endpoint,
    }
    # It tells of every request.
    quiet = f"exec {sys.executable} -m moto.server -p {port} 2>/dev/null"
    with stage.running("sh", "-c", quiet):
        wait_until(lambda: _listens(port))
        client = boto3.client(
            "sqs",
            region_name=REGION,
            endpoint_url=endpoint,
            aws_access_key_id="moto",
            aws_secret_access_key="moto",
        )
        with closing(client):
            queue = client.create_queue(QueueName="bookings")["QueueUrl"]

            def arrived() -> int:
                wanted = ["ApproximateNumberOfMessages"]
                answer = client.get_queue_attributes(QueueUrl=queue, AttributeNames=wanted)
                return int(answer["Attributes"][wanted[0]])

            url = f"sqs://sqs.{REGION}.amazonaws.com/{ACCOUNT}/bookings"
            yield Place(url=url, arrived=arrived, environment=environment)


@contextmanager
def _rabbitmq(_: Stage) -> Iterator[Place]:
    server = RabbitMQ()
    try:
        server.start()
        # A queue as RabbitMQ 3.12 and later make it by themselves: what nobody consumes is not kept in memory.
        name = server.an_exchange(queue_mode="lazy")
        yield Place(url=f"{server.url}?exchange={name}", arrived=lambda: server.waiting(name))
    finally:
        server.close()


@contextmanager
def _kafka(_: Stage) -> Iterator[Place]:
    cluster = MockCluster()
    cluster.a_topic("bookings")
    try:
        yield Place(url=f"kafka://{cluster.address}/bookings", arrived=lambda: cluster.produced("bookings"))
    finally:
        cluster.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


#: Its server comes from Debian, not with Holdfast.
RABBITMQ = Sink(what="RabbitMQ with confirms", opened=_rabbitmq, events=100_000, rounds=3, budget=10_000)


@contextmanager
def _webhook(stage: Stage) -> Iterator[Place]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}/"
    with stage.serving("benchmarks.receiver:create_app", port):
        yield Place(url=url, arrived=lambda: int(httpx.get(url).text))


SINKS = (
    Sink(what="a webhook on keep-alive", opened=_webhook, events=10_000, rounds=3, budget=1_500),
    Sink(what="a Redis stream", opened=_redis, events=100_000, rounds=3, budget=15_000),
    Sink(what="Kafka (librdkafka's mock)", opened=_kafka, events=100_000, rounds=1),
    Sink(what="SQS (moto)", opened=_sqs, events=1_000, rounds=1),
    RABBITMQ,
)
