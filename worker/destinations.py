"""Where promises go. One small file a kind, chosen by the scheme of the URL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from threading import Event
from typing import Protocol, cast, runtime_checkable
from urllib.parse import urlsplit

from sqlalchemy.orm import Session, sessionmaker

from domain.outbox import Outcome, Row, Settlement
from domain.outbox.routes import CONFIRMATION, Route
from domain.runtime.settings import Settings
from worker.route_options import refuse_without
from worker.steps.confirmation import Confirmation


class Destination(Protocol):
    """Takes rows and says what became of each.

    `deliver` gets rows in order of id and returns as many outcomes, in that order. Within
    one aggregate it sends in order, and what follows a row that did not leave is NotSent.
    It raises nothing that a row or a server can cause.
    """

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]: ...

    def close(self) -> None: ...


@runtime_checkable
class Step(Destination, Protocol):
    """A destination whose answer changes reservations."""

    def apply(self, session: Session, settlement: Settlement) -> None:
        """Write the effects of what was settled, in the same transaction."""
        ...


@dataclass(frozen=True)
class Kind:
    """Where a kind of destination is written, and the extra of the package that brings its library along."""

    module: str
    name: str
    extra: str | None = None


WEBHOOK = Kind("webhook", "Webhook")
AMQP = Kind("amqp", "Amqp", "rabbitmq")
REDIS = Kind("redis", "RedisStream")

KINDS: Mapping[str, Kind] = {
    "log": Kind("log", "Log"),
    "null": Kind("null", "Null"),
    "http": WEBHOOK,
    "https": WEBHOOK,
    "sqs": Kind("sqs", "Sqs", "sqs"),
    "amqp": AMQP,
    "amqps": AMQP,
    "kafka": Kind("kafka", "Kafka", "kafka"),
    "redis": REDIS,
    "rediss": REDIS,
    "unix": REDIS,
}


def open_destination(route: Route, settings: Settings, db: sessionmaker[Session], stopping: Event) -> Destination:
    """Return the destination of a route, or end the process and say why there is none.

    It begins nothing more when `stopping` is set.
    """
    if route.name == CONFIRMATION and route.url == settings.confirmation_url:
        return Confirmation(route, db, stopping, timeout_seconds=settings.confirmation_timeout_seconds)
    scheme = urlsplit(route.url).scheme
    kind = KINDS[scheme]
    try:
        module = import_module(f"worker.destinations.{kind.module}")
    except ModuleNotFoundError as error:
        if kind.extra is None:
            raise
        refuse_without(route, error.name, f"{scheme}://", kind.extra)
    return cast(Destination, getattr(module, kind.name)(route, settings, stopping))
