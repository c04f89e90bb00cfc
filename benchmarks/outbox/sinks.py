"""Real servers: how many events a second one worker process delivers to them. All of it is reported, not judged."""

import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from redis import Redis

from benchmarks.environment import Connection, Environment, wait_until
from benchmarks.measure import Measure, median
from benchmarks.outbox import draining
from benchmarks.outbox.receiver import counted
from deploy.embedded import RedisServer

# The servers that the tests use. To start, query and stop each takes a hundred lines, which a copy would only repeat.
from tests.support.kafka import MockCluster
from tests.support.rabbitmq import RabbitMQ, is_installed

NAME = "sink"

#: The same events as drain to null:, for another destination.
FILL = draining.FILL.replace("'null'", f"'{NAME}'")

REGION = "eu-west-1"

#: The account that moto keeps queues for by default.
ACCOUNT = "123456789012"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A running server: its URL, how many events have arrived, and the environment variables that a worker needs."""

    url: str
    arrived: Callable[[], int]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sink:
    """What is measured. `running` starts an empty server, and stops it at the end of the block."""

    what: str
    running: Callable[[Environment], AbstractContextManager[Target]]
    events: int
    rounds: int


def sinks(environment: Environment) -> Iterator[Measure]:
    """The drain to a webhook, Redis, Kafka, SQS and RabbitMQ, without a budget."""
    for sink in SINKS:
        if sink is RABBITMQ and not is_installed():
            yield Measure(what=f"events/s to {sink.what}", measured="not measured: apt-get install rabbitmq-server")
            continue
        rate = median([_rate(environment, sink) for _ in range(sink.rounds)])
        yield Measure(
            what=f"events/s to {sink.what}, one worker process, ordered and fenced",
            measured=f"{rate:,.0f}",
            numbers={"measured": rate},
        )


def _rate(environment: Environment, sink: Sink) -> float:
    """Return the events/s of one run, by the database's clock."""
    _fill(environment, sink.events)
    with (
        tempfile.TemporaryDirectory() as folder,
        sink.running(environment) as target,
        environment.connect() as connection,
    ):
        routes = Path(folder, "routes.toml")
        routes.write_text(f'[[destination]]\nname = "{NAME}"\nurl = "{target.url}"\n')
        variables = {"HOLDFAST_ROUTES": str(routes), "CONFIRMATION_URL": "", **target.variables}
        worker = environment.running("bin/worker", "--processes", "1", "--threads", "4", **variables)
        with worker, environment.running("bin/scheduler", **variables):
            wait_until(lambda: not _is_pending(connection), seconds=300)
        if target.arrived() < sink.events:
            raise RuntimeError(f"{sink.what}: of {sink.events} events {target.arrived()} have arrived.")
        took = connection.execute(
            "SELECT extract(epoch FROM max(processed_at) - min(processed_at))::float FROM outbox"
        ).fetchone()
    assert took is not None
    return sink.events / float(str(took[0]))


def _fill(environment: Environment, events: int) -> None:
    environment.clear()
    with environment.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(FILL, {"events": events, "aggregates": events // 5})
        connection.execute("VACUUM (ANALYZE) outbox")
        connection.execute("CHECKPOINT")


def _is_pending(connection: Connection) -> bool:
    """Return whether any event is pending, after a short pause: a query at every moment would slow the drain."""
    time.sleep(0.1)
    found = connection.execute(
        "SELECT EXISTS (SELECT FROM outbox WHERE processed_at IS NULL AND dead_at IS NULL)"
    ).fetchone()
    return found == (True,)


@contextmanager
def _redis(_: Environment) -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        try:
            with Redis.from_url(server.url) as client:
                yield Target(url=f"{server.url}?stream=bookings", arrived=lambda: int(str(client.xlen("bookings"))))
        finally:
            server.stop()


@contextmanager
def _sqs(environment: Environment) -> Iterator[Target]:
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    variables = {
        "AWS_ACCESS_KEY_ID": "moto",
        "AWS_SECRET_ACCESS_KEY": "moto",
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_SQS": endpoint,
    }
    # Its log has a line for each request.
    quiet = f"exec {sys.executable} -m moto.server -p {port} 2>/dev/null"
    with environment.running("sh", "-c", quiet):
        wait_until(lambda: _listens(port))
        client = boto3.client(
            "sqs",
            region_name=REGION,
            endpoint_url=endpoint,
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        )
        with closing(client):
            queue = client.create_queue(QueueName="bookings")["QueueUrl"]

            def arrived() -> int:
                name = "ApproximateNumberOfMessages"
                attributes = client.get_queue_attributes(QueueUrl=queue, AttributeNames=[name])["Attributes"]
                return int(attributes[name])

            url = f"sqs://sqs.{REGION}.amazonaws.com/{ACCOUNT}/bookings"
            yield Target(url=url, arrived=arrived, variables=variables)


@contextmanager
def _rabbitmq(_: Environment) -> Iterator[Target]:
    server = RabbitMQ()
    try:
        server.start()
        # A queue as RabbitMQ 3.12 and later make it by default: messages that nobody consumes are not kept in memory.
        name = server.an_exchange(queue_mode="lazy")
        yield Target(url=f"{server.url}?exchange={name}", arrived=lambda: server.waiting(name))
    finally:
        server.close()


@contextmanager
def _kafka(_: Environment) -> Iterator[Target]:
    cluster = MockCluster()
    cluster.a_topic("bookings")
    try:
        yield Target(url=f"kafka://{cluster.address}/bookings", arrived=lambda: cluster.produced("bookings"))
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


#: Its server is a package of Debian. The other servers come with Holdfast.
RABBITMQ = Sink(what="RabbitMQ with confirms", running=_rabbitmq, events=100_000, rounds=3)


@contextmanager
def _webhook(environment: Environment) -> Iterator[Target]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}/"
    with environment.serving("benchmarks.outbox.receiver:create_app", port):
        yield Target(url=url, arrived=lambda: counted(port).accepted)


SINKS = (
    Sink(what="a webhook on keep-alive", running=_webhook, events=10_000, rounds=3),
    Sink(what="a Redis stream", running=_redis, events=100_000, rounds=3),
    Sink(what="Kafka (librdkafka's mock)", running=_kafka, events=100_000, rounds=1),
    Sink(what="SQS (moto)", running=_sqs, events=1_000, rounds=1),
    RABBITMQ,
)
