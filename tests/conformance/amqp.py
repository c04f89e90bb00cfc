"""The harness of `amqp://`: RabbitMQ with an exchange and a queue, behind a proxy that reads what is published."""

import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO, ClassVar

from tests.conformance.harness import ProxiedHarness, Trouble
from tests.conformance.proxy import Address, Proxy
from tests.support.rabbitmq import rabbitmq

#: The length of what a client sends first. Source: AMQP 0-9-1 §4.2.2.
GREETING_BYTES = 8

#: The type, channel and size before the payload of a frame. One byte follows the payload (§4.2.3).
FRAME = struct.Struct(">BHI")

METHOD = 1

BASIC_PUBLISH = struct.pack(">HH", 60, 40)

#: The beginnings of routing keys that lead to no queue, and to a queue that is always full.
TO_NOWHERE, TO_THE_FULL = b"nowhere", b"filled."

KEYS = {Trouble.DENIES: TO_NOWHERE, Trouble.FAILS: TO_THE_FULL}


class AmqpHarness(ProxiedHarness):
    """The troubles of one message are RabbitMQ's own: the proxy changes the routing key, and that causes them."""

    scheme = "amqp"
    impossible: ClassVar[Mapping[Trouble, str]] = {
        Trouble.REFUSES: "RabbitMQ refuses a message only for its size: see tests/worker/sinks/test_amqp.py",
        Trouble.THROTTLES: "RabbitMQ blocks connections, not single messages: see tests/worker/sinks/test_amqp.py",
    }

    def __init__(self) -> None:
        self._server = rabbitmq()
        self._name = self._server.an_exchange("booking.*")
        self._a_full_queue()
        self._accepted: list[str] = []
        super().__init__(_AmqpProxy(("127.0.0.1", self._server.port), self._routing_key))
        self.url = f"amqp://guest:guest@127.0.0.1:{self.proxy.port}/?exchange={self._name}"

    def _a_full_queue(self) -> None:
        with self._server.channel() as channel:
            full = f"{self._name}-full"
            channel.queue_declare(full, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
            channel.queue_bind(full, self._name, f"{TO_THE_FULL.decode()}#")

    def _routing_key(self, body: str, key: bytes) -> bytes:
        """Let a message in. Return the routing key that it gets, which is as long as its own."""
        trouble = self.intake.admit(body)
        prefix = KEYS.get(trouble, b"") if trouble else b""
        return prefix + key[len(prefix) :]

    def accepted(self) -> Sequence[str]:
        self._accepted += [message.body for message in self._server.take_all(self._name)]
        return self._accepted

    def cause(self, trouble: Trouble, position: int = 1) -> None:
        super().cause(trouble, position)
        if trouble is Trouble.RETURNS:
            with self._server.channel() as channel:
                channel.queue_unbind(self._name, self._name, "booking.*")

    def recover(self) -> None:
        super().recover()
        with self._server.channel() as channel:
            channel.queue_bind(self._name, self._name, "booking.*")

    def close(self) -> None:
        super().close()
        with self._server.channel() as channel:
            channel.exchange_delete(self._name)
            channel.queue_delete(self._name)
            channel.queue_delete(f"{self._name}-full")


class _AmqpProxy(Proxy):
    """Reads each message that is published, and changes its routing key."""

    def __init__(self, server: Address, routing_key: Callable[[str, bytes], bytes]) -> None:
        self._routing_key = routing_key
        super().__init__(server)

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, ValueError), client.makefile("rb") as sent:
            server.sendall(sent.read(GREETING_BYTES))
            while frame := _frame(sent):
                is_message = frame[0] == METHOD and frame[FRAME.size :].startswith(BASIC_PUBLISH)
                server.sendall(self._message(frame, sent) if is_message else frame)
        super()._send(client, server)

    def _message(self, publish: bytes, sent: BinaryIO) -> bytes:
        """Read the rest of a message: a header with its length, and its body in pieces (§4.2.6). Return all of it."""
        header = _frame(sent)
        (size,) = struct.unpack_from(">Q", header, FRAME.size + 4)
        pieces: list[bytes] = []
        while sum(len(piece) - FRAME.size - 1 for piece in pieces) < size:
            pieces.append(_frame(sent))
        body = b"".join(piece[FRAME.size : -1] for piece in pieces)
        return b"".join([self._rerouted(publish, body.decode()), header, *pieces])

    def _rerouted(self, publish: bytes, body: str) -> bytes:
        exchange = FRAME.size + len(BASIC_PUBLISH) + 2
        key = exchange + 1 + publish[exchange] + 1
        ends = key + publish[key - 1]
        return publish[:key] + self._routing_key(body, publish[key:ends]) + publish[ends:]


def _frame(sent: BinaryIO) -> bytes:
    """Return the bytes of the next frame, or none at the end of the connection."""
    head = sent.read(FRAME.size)
    if len(head) < FRAME.size:
        return b""
    _, _, size = FRAME.unpack(head)
    return head + sent.read(size + 1)
