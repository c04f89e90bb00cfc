"""A RabbitMQ for tests, from Debian's package: it is started once a test run, and only if a test needs it."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from tests.support.certificates import Files
from tests.support.ports import free_port
from tests.support.requirements import required

#: The programs of Debian's package that run as any user. Its wrappers in /usr/sbin run as the user `rabbitmq` only.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")

#: It starts in 5 s on an idle machine, and takes much longer on a busy one.
START_SECONDS = 120.0

#: The default is 128 MiB, which is more than a test should send.
MAX_MESSAGE_BYTES = 65_536

CONFIGURATION = f"max_message_size = {MAX_MESSAGE_BYTES}\n"


def rabbitmq() -> "RabbitMQ":
    """Return the RabbitMQ of this test run. Skips the test where RabbitMQ is not installed."""
    required("RabbitMQ", is_installed(), "rabbitmq-server")
    return _started()


def is_installed() -> bool:
    return (PROGRAMS / "rabbitmq-server").exists()


@cache
def _started() -> "RabbitMQ":
    server = RabbitMQ()
    atexit.register(server.close)
    server.start()
    return server


@dataclass(frozen=True)
class Message:
    """A message in a queue."""

    body: str
    routing_key: str
    properties: pika.BasicProperties


class RabbitMQ:
    """One node. After `stop` and `start` it has the same port and the same messages, as after an outage."""

    def __init__(self) -> None:
        self.port = free_port()
        self._home = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        (self._home / "rabbitmq.conf").write_text(CONFIGURATION)
        (self._home / "plugins").write_text("[].")
        self._environment = _environment(self._home, self.port)
        self._process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self._home / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [PROGRAMS / "rabbitmq-server"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, (self._home / "output").read_text()
            assert time.monotonic() < deadline, f"RabbitMQ is not ready: {self._home}/output"
            time.sleep(0.1)

    def stop(self) -> None:
        """Kill it with all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    @contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        """Open a channel, as an operator or a consumer does."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def an_exchange(self, *keys: str, **arguments: object) -> str:
        """Declare an exchange and a queue with the same new name, bound for these keys. Return the name."""
        name = f"bookings-{uuid4().hex[:8]}"
        with self.channel() as channel:
            channel.exchange_declare(name, "topic", durable=True)
            channel.queue_declare(name, durable=True, arguments=_named(arguments))
            for key in keys or ("#",):
                channel.queue_bind(name, name, key)
        return name

    def take_all(self, queue: str) -> list[Message]:
        """Take all messages out of a queue, and return them in order."""
        found: list[Message] = []
        with self.channel() as channel:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    return found
                found.append(Message(body.decode(), method.routing_key, properties))

    def waiting(self, queue: str) -> int:
        """Return how many messages are in a queue."""
        with self.channel() as channel:
            count: int = channel.queue_declare(queue, passive=True).method.message_count
        return count

    def control(self, *command: str) -> None:
        """Run `rabbitmqctl`."""
        subprocess.run(
            [PROGRAMS / "rabbitmqctl", "--quiet", "--node", self._environment["RABBITMQ_NODENAME"], *command],
            env=self._environment,
            check=True,
            capture_output=True,
            timeout=START_SECONDS,
        )

    def listen_with_tls(self, own: Files, authority: Path, *options: str) -> int:
        """Listen for TLS with a certificate, until the node is stopped. Return the port.

        `authority` signs the certificates of clients, if the options, terms of Erlang's `ssl`, ask for one.
        """
        port = free_port()
        files = f'{{cacertfile, "{authority}"}}, {{certfile, "{own.certificate}"}}, {{keyfile, "{own.key}"}}'
        listener, terms = f'{{"127.0.0.1", {port}}}', ", ".join((files, *options))
        self.control("eval", f"rabbit_networking:start_ssl_listener({listener}, [{terms}], 1).")
        return port

    @contextmanager
    def alarmed(self) -> Iterator[None]:
        """Set the alarm for a full disk within the block: RabbitMQ blocks every connection that publishes."""
        alarm = "{resource_limit, disk, node()}"
        self.control("eval", f"rabbit_alarm:set_alarm({{{alarm}, []}}).")
        try:
            yield
        finally:
            self.control("eval", f"rabbit_alarm:clear_alarm({alarm}).")

    def _is_ready(self) -> bool:
        with suppress(AMQPError, OSError), socket.create_connection(("127.0.0.1", self.port)), self.channel():
            return True
        return False


def _environment(home: Path, port: int) -> Mapping[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "RABBITMQ_CONF_ENV_FILE": str(home / "none"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_NODENAME": f"holdfast{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        # Without busy waiting, as it shares the machine with the workers under test.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
    }


def _named(arguments: Mapping[str, object]) -> dict[str, object]:
    return {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
