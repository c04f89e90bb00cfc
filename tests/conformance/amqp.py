"""The world of `amqp://`: RabbitMQ with an exchange and a queue, behind a gate that reads what is published."""

import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO, ClassVar

from tests.conformance.harness import Gated, Trouble
from tests.conformance.proxy import Address, Gate
from tests.support.rabbitmq import rabbitmq

#: What a client says before all else. Source: AMQP 0-9-1 §4.2.2.
GREETING_BYTES = 8

#: Type, channel and size come before the payload of a frame, and one byte after it (§4.2.3).
FRAME = struct.Struct(">BHI")

METHOD = 1

BASIC_PUBLISH = struct.pack(">HH", 60, 40)

#: Which routing keys lead nowhere, and to a queue that is always full.
ASTRAY, TO_THE_FULL = b"astray.", b"filled."

KEYS = {Trouble.REFUSES: ASTRAY, Trouble.FAILS: TO_THE_FULL}


class AmqpWorld(Gated):
    """Its troubles of one message are RabbitMQ's own: the gate sends the message where it meets them."""

    cannot: ClassVar[Mapping[Trouble, str]] = {
        Trouble.THROTTLES: "RabbitMQ blocks a connection and says nothing of single messages: see tests/worker/sinks/test_amqp.py",
    }
    returned_is_dead = True

    def __init__(self) -> None:
        self._server = rabbitmq()
        self._name = self._server.an_exchange("booking.*")
        self._a_full_queue()
        self._taken: list[str] = []
        super().__init__(_Gate(("127.0.0.1", self._server.port), self._address))
        self.url = f"amqp://guest:guest@127.0.0.1:{self.gate.port}/?exchange={self._name}"

    def _a_full_queue(self) -> None:
        with self._server.channel() as channel:
            full = f"{self._name}-full"
            channel.queue_declare(full, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
            channel.queue_bind(full, self._name, f"{TO_THE_FULL.decode()}#")

    def _address(self, body: str, key: bytes) -> bytes:
        """Let a message in. Return the routing key that it goes on with, which is as long."""
        trouble = self.door.meets(body)
        prefix = KEYS.get(trouble, b"") if trouble else b""
        return prefix + key[len(prefix) :]

    def accepted(self) -> Sequence[str]:
        self._taken += [message.body for message in self._server.taken(self._name)]
        return self._taken

    def suffers(self, trouble: Trouble, position: int = 1) -> None:
        super().suffers(trouble, position)
        if trouble is Trouble.RETURNS:
            with self._server.channel() as channel:
                channel.queue_unbind(self._name, self._name, "booking.*")

    def recovers(self) -> None:
        super().recovers()
        with self._server.channel() as channel:
            channel.queue_bind(self._name, self._name, "booking.*")

    def close(self) -> None:
        super().close()
        with self._server.channel() as channel:
            channel.exchange_delete(self._name)
            channel.queue_delete(self._name)
            channel.queue_delete(f"{self._name}-full")


class _Gate(Gate):
    """Reads each message that goes in, and writes on it where it is to go."""

    def __init__(self, server: Address, address: Callable[[str, bytes], bytes]) -> None:
        self._readdress = address
        super().__init__(server)

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, ValueError), client.makefile("rb") as sent:
            server.sendall(sent.read(GREETING_BYTES))
            while frame := _frame(sent):
                is_message = frame[0] == METHOD and frame[FRAME.size :].startswith(BASIC_PUBLISH)
                server.sendall(self._message(frame, sent) if is_message else frame)
        super()._send(client, server)

    def _message(self, publish: bytes, sent: BinaryIO) -> bytes:
        """Read the rest of a message: a header that says how long it is, and its body in pieces (§4.2.6)."""
        header = _frame(sent)
        (size,) = struct.unpack_from(">Q", header, FRAME.size + 4)
        pieces: list[bytes] = []
        while sum(len(piece) - FRAME.size - 1 for piece in pieces) < size:
            pieces.append(_frame(sent))
        body = b"".join(piece[FRAME.size : -1] for piece in pieces)
        return b"".join([self._readdressed(publish, body.decode()), header, *pieces])

    def _readdressed(self, publish: bytes, body: str) -> bytes:
        exchange = FRAME.size + len(BASIC_PUBLISH) + 2
        key = exchange + 1 + publish[exchange] + 1
        ends = key + publish[key - 1]
        return publish[:key] + self._readdress(body, publish[key:ends]) + publish[ends:]


def _frame(sent: BinaryIO) -> bytes:
    """Read a frame, with what stands before and after its payload. Return nothing when there is none."""
    head = sent.read(FRAME.size)
    if len(head) < FRAME.size:
        return b""
    _, _, size = FRAME.unpack(head)
    return head + sent.read(size + 1)
