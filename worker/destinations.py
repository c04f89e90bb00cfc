"""Destinations: what the workers deliver to. A route's URL chooses a sink by its scheme; a step is chosen by name."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast, runtime_checkable
from urllib.parse import urlsplit

from sqlalchemy.orm import Session, sessionmaker

from domain.bookings.saga import Step as BookingStep
from domain.outbox import Outcome, Route, Routes, Row, Settlement
from domain.runtime.settings import Settings
from worker import formats
from worker.ordering.pace import Pace
from worker.route_options import extra_for, wrong_route


class Destination(Protocol):
    """Takes rows and returns what became of each.

    `deliver` gets rows in order of id and returns as many outcomes, in the same order. It sends the rows of one
    aggregate in order, and returns NotSent for the rows of an aggregate behind one that was not taken.
    Whatever a row contains and whatever a server does, it raises nothing.

    A process has one instance for each route, whose `deliver` several threads call at once. No call may wait
    for an answer of a server for much longer than `timeout_of(route)`; a step has a setting of its own. Every
    destination is given the pace at which it may be called. When the process stops, no further part of a batch is
    sent to a server: its rows are NotSent. Only a message that a broker has refused together with others may still be
    sent again alone.
    """

    def deliver(self, rows: Sequence[Row]) -> Sequence[Outcome]: ...

    def close(self) -> None: ...


@runtime_checkable
class WithEffects(Destination, Protocol):
    """A destination with effects in our own database: a step, whose answers change reservations, or the feed."""

    def apply(self, session: Session, settlement: Settlement) -> None:
        """Write the effects of a batch, in the transaction that settles its rows."""
        ...


@runtime_checkable
class Step(WithEffects, Protocol):
    """A destination whose answers change reservations."""


@dataclass(frozen=True)
class Kind:
    """Where the class of a kind of destination is, and the extra that installs the library it needs.

    The module is imported only when a route asks for it, so that no library need be there that no route uses.
    """

    module: str
    name: str
    extra: str | None = None

    def load(self) -> Any:
        """Return the class."""
        return getattr(import_module(self.module), self.name)


WEBHOOK = Kind("worker.sinks.webhook", "Webhook")
AMQP = Kind("worker.sinks.amqp.sink", "Amqp", extra="rabbitmq")
REDIS = Kind("worker.sinks.redis.sink", "RedisStream")

#: All kinds of sinks, by the scheme of the URL. Each class is called with the route, the settings and the pace.
SINKS: Mapping[str, Kind] = {
    "log": Kind("worker.sinks.log", "Log"),
    "null": Kind("worker.sinks.null", "Null"),
    "feed": Kind("worker.sinks.feed", "Feed"),
    "http": WEBHOOK,
    "https": WEBHOOK,
    "sqs": Kind("worker.sinks.sqs.sink", "Sqs", extra="sqs"),
    "amqp": AMQP,
    "amqps": AMQP,
    "kafka": Kind("worker.sinks.kafka.sink", "Kafka", extra="kafka"),
    "redis": REDIS,
    "rediss": REDIS,
    "unix": REDIS,
}

#: All steps, by the name of their route. Each class is called with the arguments of `open_step`.
STEPS: Mapping[str, Kind] = {
    BookingStep.INVENTORY: Kind("worker.steps.inventory", "InventoryStep"),
    BookingStep.PRICING: Kind("worker.steps.pricing", "PricingStep"),
    BookingStep.PAYMENT: Kind("worker.steps.payment", "PaymentStep"),
    BookingStep.CONFIRMATION: Kind("worker.steps.confirmation", "ConfirmationStep"),
}


def open_sink(route: Route, settings: Settings, pace: Pace) -> Destination:
    """Return the sink that the URL of a route leads to.

    Raises ConfigurationError if there is no such sink or format, if a package that it needs is missing, or if the
    sink can't use the route.
    """
    scheme = urlsplit(route.url).scheme
    if scheme not in SINKS:
        raise wrong_route(route, f"there is no kind of destination {scheme!r}; the kinds are {', '.join(SINKS)}")
    formats.require_known(route)
    kind = SINKS[scheme]
    with extra_for(route, f"{scheme}://", kind.extra) if kind.extra else nullcontext():
        sink = kind.load()
    return cast(Destination, sink(route, settings, pace))


def open_step(route: Route, settings: Settings, db: sessionmaker[Session], routes: Routes, pace: Pace) -> Step:
    """Return the step of a route.

    `routes` are the destinations of the events that its answers cause. Raises ConfigurationError if the step can't
    use its URL.
    """
    step = STEPS[route.name].load()
    return cast(Step, step(route, settings, db, routes, pace))
