"""`amqp://` publishes to an exchange of RabbitMQ, with confirms; the routing key is the event's type."""

import re
import ssl
from collections.abc import Mapping, Sequence
from contextlib import closing
from threading import Event, Lock
from urllib.parse import SplitResult, unquote, urlsplit

from pika import BasicProperties, ConnectionParameters, DeliveryMode, PlainCredentials, SSLOptions

from domain.outbox import Outcome, Rejected, Row, Unreachable
from domain.outbox.routes import Route
from domain.runtime.settings import Settings
from worker.formats import format_of
from worker.relay.ordered_batches import in_ordered_batches, written
from worker.route_options import options_of, refuse, timeout_of
from worker.sinks.amqp.connection import Link, Publication

OPTIONS = ("exchange", "cacertfile", "certfile", "keyfile")

PORTS = {"amqp": 5672, "amqps": 5671}


class Amqp:
    """One connection for all threads, opened when it is first needed and again after each outage.

    It declares nothing: exchanges, queues and bindings are the operator's.
    """

    def __init__(self, route: Route, settings: Settings, stopping: Event) -> None:
        self._timeout_seconds = timeout_of(route, settings)
        self._format = format_of(route)
        self._stopping = stopping
        options = _options(route)
        self._exchange = options["exchange"]
        self._parameters = _parameters(route, options, self._timeout_seconds)
        self._lock = Lock()
        self._link: Link | None = None

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        return in_ordered_batches(rows, self._send, self._stopping)

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        entries, outcomes = written(rows, self._written)
        answers = self._published([publication for _, publication in entries])
        outcomes.update((row.id, answer) for (row, _), answer in zip(entries, answers, strict=True))
        return [outcomes[row.id] for row in rows]

    def _published(self, messages: Sequence[Publication]) -> Sequence[Outcome]:
        link = self._shared()
        outcomes = list(link.publish(messages, self._timeout_seconds))
        suspects = _suspects(link, outcomes)
        # Another thread's message may be the one that RabbitMQ refused.
        alone = self._sift([messages[position] for position in suspects]) if suspects else ()
        for position, outcome in zip(suspects, alone, strict=True):
            outcomes[position] = outcome
        return outcomes

    def _sift(self, messages: Sequence[Publication]) -> Sequence[Outcome]:
        """Publish messages of which some can't be taken, half by half, until each of those is found alone."""
        with closing(Link(self._parameters, self._exchange)) as link:
            outcomes = list(link.publish(messages, self._timeout_seconds))
        suspects = _suspects(link, outcomes)
        if suspects and len(messages) == 1:
            return [Rejected(f"{_error(outcomes[0])} (it has {len(messages[0].body):,} bytes)")]
        half = -(-len(suspects) // 2)
        for part in (suspects[:half], suspects[half:]):
            alone = self._sift([messages[position] for position in part]) if part else ()
            for position, outcome in zip(part, alone, strict=True):
                outcomes[position] = outcome
            if any(isinstance(outcome, Unreachable) for outcome in alone):
                break
        return outcomes

    def _shared(self) -> Link:
        with self._lock:
            if self._link is None or self._link.fault:
                self._link = Link(self._parameters, self._exchange)
            return self._link

    def _written(self, row: Row) -> Publication:
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
        if self._link:
            self._link.close()


def _suspects(link: Link, outcomes: Sequence[Outcome]) -> Sequence[int]:
    """Return the positions of those of which one is what RabbitMQ closed the channel for."""
    return [position for position, outcome in enumerate(outcomes) if link.is_refused and outcome is link.fault]


def _error(outcome: Outcome) -> str:
    return outcome.error if isinstance(outcome, Unreachable) else ""


def _options(route: Route) -> Mapping[str, str]:
    options = options_of(route)
    for name in options:
        if name not in OPTIONS:
            refuse(route, f"{name!r} is no option of it; the options are {', '.join(OPTIONS)}")
    if not options.get("exchange"):
        refuse(route, "it needs the exchange to publish to: amqp://user:password@host/vhost?exchange=bookings")
    if len(options["exchange"].encode()) > 127:
        refuse(route, "the name of an exchange has 127 bytes at the most")
    return options


def _parameters(route: Route, options: Mapping[str, str], timeout_seconds: float) -> ConnectionParameters:
    try:
        parts = urlsplit(route.url)
        port = parts.port or PORTS[parts.scheme]
    except ValueError as error:
        refuse(route, f"its address can't be read: {error}")
    if not parts.hostname:
        refuse(route, "it must name a host: amqp://user:password@host/vhost?exchange=bookings")
    return ConnectionParameters(
        host=parts.hostname,
        port=port,
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
        refuse(route, f"a slash in the name of a virtual host is written %2F: {name.replace('/', '%2F')}")
    return unquote(name) or "/"


def _tls(route: Route, options: Mapping[str, str], parts: SplitResult) -> SSLOptions | None:
    files = {name: value for name, value in options.items() if name.endswith("file")}
    if parts.scheme == "amqp":
        if files:
            refuse(route, f"{', '.join(files)} can be used with amqps:// only")
        return None
    if "keyfile" in files and "certfile" not in files:
        refuse(route, "keyfile needs a certfile beside it")
    try:
        context = ssl.create_default_context(cafile=files.get("cacertfile"))
        if "certfile" in files:
            context.load_cert_chain(files["certfile"], files.get("keyfile"))
    except (OSError, ValueError) as error:
        refuse(route, f"its certificates can't be read: {re.sub(r'^.Errno [0-9]+. ', '', str(error))}")
    return SSLOptions(context, parts.hostname)
