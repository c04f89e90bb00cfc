"""The harness of `kafka://`: a mock cluster, behind a proxy that reads what is produced."""

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

from confluent_kafka import KafkaError

from tests.conformance.harness import ProxiedHarness, Trouble
from tests.conformance.proxy import Proxy
from tests.support.kafka import PRODUCE, MockCluster

TOPIC = "bookings"

#: The length of a request, and the number of its kind. Source: Kafka's protocol guide, "Protocol Primitive Types".
SIZE, KIND = struct.Struct(">i"), struct.Struct(">h")

#: The beginning of every event in the format `envelope`.
BEGINNING = '{"event_id"'

ERRORS = {
    Trouble.REFUSES: KafkaError.INVALID_RECORD,
    Trouble.RETURNS: KafkaError.TOPIC_AUTHORIZATION_FAILED,
}


class KafkaHarness(ProxiedHarness):
    """A broker refuses whole batches: a message that has trouble has it first with others, and then alone."""

    scheme = "kafka"
    impossible: ClassVar[Mapping[Trouble, str]] = {
        Trouble.DENIES: "a broker lets a producer in, and then all of its messages",
        Trouble.FAILS: "librdkafka itself tries again until a message times out",
        Trouble.THROTTLES: "librdkafka itself waits as long as a broker asks it to",
    }
    short_seconds = 1.0
    #: librdkafka continues to connect until a message times out, so each attempt in an outage takes as long.
    outage_seconds = 2.0

    def __init__(self) -> None:
        self._cluster = MockCluster()
        self._cluster.a_topic(TOPIC)
        super().__init__(_KafkaProxy(self))
        # One request after the other, so that the answer that was chosen for a request goes to this one. And
        # librdkafka connects again soon, so that no test waits for that.
        options = "max.in.flight=1&reconnect.backoff.ms=20&reconnect.backoff.max.ms=100"
        self.url = f"kafka://127.0.0.1:{self.proxy.port}/{TOPIC}?{options}"

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self._cluster.address.rpartition(":")
        return host, int(port)

    def admit(self, bodies: Sequence[str]) -> None:
        """Let the messages of a request in, and choose the cluster's answer to it by their trouble."""
        troubles = {self.intake.admit(body) for body in bodies}
        self._cluster.answers(*(ERRORS[trouble] for trouble in troubles if trouble in ERRORS))

    def accepted(self) -> Sequence[str]:
        return [message.body for message in self._cluster.messages(TOPIC)]

    def arrived(self) -> Sequence[str]:
        refused = self._trouble is Trouble.REFUSES
        return list(dict.fromkeys(self.intake.arrived)) if refused else self.intake.arrived

    def close(self) -> None:
        super().close()
        self._cluster.close()


class _KafkaProxy(Proxy):
    """Shows the harness what is produced, and replaces the broker's address in its answers with its own."""

    def __init__(self, harness: KafkaHarness) -> None:
        self._harness = harness
        super().__init__(harness.address)

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError, ValueError), client.makefile("rb") as sent:
            while len(head := sent.read(SIZE.size)) == SIZE.size:
                request = sent.read(SIZE.unpack(head)[0])
                if KIND.unpack_from(request)[0] == PRODUCE:
                    self._harness.admit(_events(request))
                server.sendall(head + request)
        super()._send(client, server)

    def _passes_on(self, answered: bytes, client: socket.socket) -> bool:
        host, port = self._harness.address
        there, here = (host.encode() + SIZE.pack(number) for number in (port, self.port))
        return super()._passes_on(answered.replace(there, here), client)


def _events(request: bytes) -> Sequence[str]:
    """Return the events in a request. It is not compressed."""
    # Latin-1 decodes any bytes, and much of a request is no text.
    text = request.decode("latin-1")
    found = []
    begins = text.find(BEGINNING)
    while begins >= 0:
        _, ends = json.JSONDecoder().raw_decode(text, begins)
        found.append(text[begins:ends])
        begins = text.find(BEGINNING, ends)
    return found
