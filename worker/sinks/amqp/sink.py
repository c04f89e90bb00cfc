"""`amqp://` publishes to an exchange of RabbitMQ, with confirms; the routing key is the event's type."""

import re
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from threading import Lock
from urllib.parse import SplitResult, unquote, urlsplit

from pika import BasicProperties, ConnectionParameters, DeliveryMode, PlainCredentials, SSLOptions

from domain.outbox import Outcome, Rejected, Route, Row, Unreachable, error_of
from domain.runtime.settings import Settings
from worker.formats import format_of
from worker.ordering.ordered_batches import deliver_in_batches, encode
from worker.ordering.pace import Pace
from worker.route_options import options_of, require_port, timeout_of, wrong_route
from worker.sinks.amqp.connection import Connection, Publication

OPTIONS = ("exchange", "cacertfile", "certfile", "keyfile")

PORTS = {"amqp": 5672, "amqps": 5671}


class Amqp:
    """One connection for all threads. It is opened when it is first needed, and again after each outage.

    It declares no exchange, queue or binding: these are the operator's.
    """

    def __init__(self, route: Route, settings: Settings, pace: Pace) -> None:
        self._timeout_seconds = timeout_of(route, settings)
        self._format = format_of(route)
        self._pace = pace
        options = _options(route)
        self._exchange = options["exchange"]
        self._parameters = _parameters(route, options, self._timeout_seconds)
        self._lock = Lock()
        self._connection: Connection | None = None

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return deliver_in_batches(rows, self._send, self._pace)

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        entries, outcomes = encode(rows, self._publication)
        published = self._publish([publication for _, publication in entries])
        outcomes.update((row.id, outcome) for (row, _), outcome in zip(entries, published, strict=True))
        return [outcomes[row.id] for row in rows]

    def _publish(self, messages: Sequence[Publication]) -> Sequence[Outcome]:
        connection, outcomes = self._publish_together(messages)
        suspects = _suspects(connection, outcomes)
        # The message that RabbitMQ refused may be another thread's.
        retried = self._publish_apart([messages[position] for position in suspects]) if suspects else ()
        for position, outcome in zip(suspects, retried, strict=True):
            outcomes[position] = outcome
        return outcomes

    def _publish_together(self, messages: Sequence[Publication]) -> tuple[Connection, list[Outcome]]:
        """Publish messages on the shared connection, and once more on a new one if it is lost before a confirm."""
        deadline = time.monotonic() + self._timeout_seconds
        connection = self._shared_connection()
        was_open = connection.is_open
        outcomes = list(connection.publish(messages, self._timeout_seconds))
        if was_open and connection.is_lost and all(outcome is connection.fault for outcome in outcomes):
            # A proxy or RabbitMQ may close a connection at any moment, so this says nothing about RabbitMQ. Messages
            # that it did get are repeated, with the same ids. None is overtaken: each is the first of its aggregate.
            connection = self._shared_connection()
            outcomes = list(connection.publish(messages, deadline - time.monotonic()))
        return connection, outcomes

    def _publish_apart(self, messages: Sequence[Publication]) -> Sequence[Outcome]:
        """Publish messages of which RabbitMQ refuses some, half by half, until each refused one is found."""
        with closing(Connection(self._parameters, self._exchange)) as connection:
            outcomes = list(connection.publish(messages, self._timeout_seconds))
        suspects = _suspects(connection, outcomes)
        if suspects and len(messages) == 1:
            return [Rejected(f"{error_of(outcomes[0])} (it has {len(messages[0].body):,} bytes)")]
        half = -(-len(suspects) // 2)
        for part in (suspects[:half], suspects[half:]):
            retried = self._publish_apart([messages[position] for position in part]) if part else ()
            for position, outcome in zip(part, retried, strict=True):
                outcomes[position] = outcome
            if any(isinstance(outcome, Unreachable) for outcome in retried):
                break
        return outcomes

    def _shared_connection(self) -> Connection:
        with self._lock:
            if self._connection is None or self._connection.fault:
                self._connection = Connection(self._parameters, self._exchange)
            return self._connection

    def _publication(self, row: Row) -> Publication:
        message = self._format(row)
        properties = BasicProperties(
            content_type=message.content_type,
            headers={**message.attributes, "aggregate_id": str(row.aggregate_id)},
            delivery_mode=DeliveryMode.Persistent,
            message_id=str(row.event_id),
            timestamp=int(row.created_at.timestamp()),
            type=row.type,
        )
        return Publication(row.type, message.body.encode(), properties)

    def close(self) -> None:
        if self._connection:
            self._connection.close()


def _suspects(connection: Connection, outcomes: Sequence[Outcome]) -> Sequence[int]:
    """Return the positions of the messages one of which made RabbitMQ close the channel."""
    return [
        position for position, outcome in enumerate(outcomes) if connection.is_refused and outcome is connection.fault
    ]


def _options(route: Route) -> Mapping[str, str]:
    options = options_of(route)
    for name in options:
        if name not in OPTIONS:
            raise wrong_route(route, f"{name!r} is no option of it; the options are {', '.join(OPTIONS)}")
    if not options.get("exchange"):
        raise wrong_route(
            route, "it needs the exchange to publish to: amqp://user:password@host/vhost?exchange=bookings"
        )
    if len(options["exchange"].encode()) > 127:
        raise wrong_route(route, "the name of an exchange has 127 bytes at the most")
    return options


def _parameters(route: Route, options: Mapping[str, str], timeout_seconds: float) -> ConnectionParameters:
    require_port(route)
    parts = urlsplit(route.url)
    if not parts.hostname:
        raise wrong_route(route, "it must name a host: amqp://user:password@host/vhost?exchange=bookings")
    return ConnectionParameters(
        host=parts.hostname,
        port=parts.port or PORTS[parts.scheme],
        virtual_host=_virtual_host(route, parts),
        credentials=PlainCredentials(unquote(parts.username or "guest"), unquote(parts.password or "guest")),
        ssl_options=_tls(route, options, parts),
        connection_attempts=1,
        socket_timeout=timeout_seconds,
        stack_timeout=timeout_seconds,
        client_properties={"connection_name": f"holdfast: {route.name}"},
    )


def _virtual_host(route: Route, parts: SplitResult) -> str:
    name = parts.path.removeprefix("/")
    if "/" in name:
        raise wrong_route(route, f"a slash in the name of a virtual host is written %2F: {name.replace('/', '%2F')!r}")
    return unquote(name) or "/"


def _tls(route: Route, options: Mapping[str, str], parts: SplitResult) -> SSLOptions | None:
    files = {name: value for name, value in options.items() if name.endswith("file")}
    if parts.scheme == "amqp":
        if files:
            raise wrong_route(route, f"{', '.join(files)} can be used with amqps:// only")
        return None
    if "keyfile" in files and "certfile" not in files:
        raise wrong_route(route, "keyfile needs a certfile beside it")
    try:
        context = ssl.create_default_context(cafile=files.get("cacertfile"))
        if "certfile" in files:
            context.load_cert_chain(files["certfile"], files.get("keyfile"))
    except (OSError, ValueError) as error:
        reason = re.sub(r"^.Errno [0-9]+. ", "", str(error))
        raise wrong_route(route, f"its certificates can't be read: {reason}") from error
    return SSLOptions(context, parts.hostname)
