"""The world of `kafka://`: a mock cluster behind a gate that knows which requests produce, and what."""

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

from confluent_kafka import KafkaError

from tests.conformance.harness import Gated, Trouble
from tests.conformance.proxy import Gate
from tests.support.kafka import PRODUCE, MockCluster

TOPIC = "bookings"

#: The length of a request, and what it asks. Source: Kafka's protocol guide, "Protocol Primitive Types".
SIZE, ASKS = struct.Struct(">i"), struct.Struct(">h")

#: How an event in the format `envelope` begins.
BEGINNING = '{"event_id"'

ERRORS = {
    Trouble.REFUSES: KafkaError.INVALID_RECORD,
    Trouble.RETURNS: KafkaError.TOPIC_AUTHORIZATION_FAILED,
}


class KafkaWorld(Gated):
    """A broker refuses batches, so a message that has trouble has it in company first, and then alone."""

    cannot: ClassVar[Mapping[Trouble, str]] = {
        Trouble.FAILS: "librdkafka itself tries again until the time of a message is over",
        Trouble.THROTTLES: "librdkafka itself waits as long as a broker asks it to",
    }
    short_seconds = 3.0
    #: librdkafka goes on connecting until a message's time is over, so that is how long an outage is waited for.
    timeout_seconds = 5.0

    def __init__(self) -> None:
        self._cluster = MockCluster()
        self._cluster.a_topic(TOPIC)
        super().__init__(_Gate(self))
        # One request after the other, so that the one that was decided upon gets the answer.
        self.url = f"kafka://127.0.0.1:{self.gate.port}/{TOPIC}?max.in.flight=1"

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self._cluster.address.rpartition(":")
        return host, int(port)

    def comes_in(self, bodies: Sequence[str]) -> None:
        """Let the messages of a request in, and have the cluster answer it as the door says."""
        troubles = {self.door.meets(body) for body in bodies}
        self._cluster.answers(*(ERRORS[trouble] for trouble in troubles if trouble in ERRORS))

    def accepted(self) -> Sequence[str]:
        return [message.body for message in self._cluster.taken(TOPIC)]

    def arrived(self) -> Sequence[str]:
        refused = self._trouble is Trouble.REFUSES
        return list(dict.fromkeys(self.door.arrived)) if refused else self.door.arrived

    def close(self) -> None:
        super().close()
        self._cluster.close()


class _Gate(Gate):
    """Tells the world what is produced, and clients that the broker is where the gate is."""

    def __init__(self, world: KafkaWorld) -> None:
        self._world = world
        super().__init__(world.address)

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, ValueError), client.makefile("rb") as sent:
            while len(head := sent.read(SIZE.size)) == SIZE.size:
                request = sent.read(SIZE.unpack(head)[0])
                if ASKS.unpack_from(request)[0] == PRODUCE:
                    self._world.comes_in(_events(request))
                server.sendall(head + request)
        super()._send(client, server)

    def _passes_on(self, answered: bytes, client: socket.socket) -> bool:
        host, port = self._world.address
        there, here = (host.encode() + SIZE.pack(number) for number in (port, self.port))
        return super()._passes_on(answered.replace(there, here), client)


def _events(request: bytes) -> Sequence[str]:
    """Return the events in a request, which is not compressed, as they stand there."""
    # One character a byte, so that what is no text is no trouble.
    text = request.decode("latin-1")
    found = []
    begins = text.find(BEGINNING)
    while begins >= 0:
        _, ends = json.JSONDecoder().raw_decode(text, begins)
        found.append(text[begins:ends])
        begins = text.find(BEGINNING, ends)
    return found
