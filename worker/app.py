"""The parts of a process that delivers: the database, the routes, and the relay with its open destinations."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event

from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.fulfilment import load_routes
from domain.outbox import Route, Routes
from domain.outbox.operations import routes_in_force
from domain.runtime import database, logs, tracing
from domain.runtime.errors import ConfigurationError
from domain.runtime.identity import user_at_host
from domain.runtime.settings import Settings
from worker.destinations import Destination, open_sink, open_step
from worker.ordering.pace import Pace
from worker.relay.health import Health
from worker.relay.leases import Leases
from worker.relay.relay import Relay
from worker.telemetry import metrics

#: The connections of a process beside those of its threads: one of them is for the renewal of leases.
SPARE_CONNECTIONS = 2


@dataclass(frozen=True, kw_only=True)
class App:
    """The parts of a process that delivers."""

    settings: Settings
    db: sessionmaker[Session]
    routes: Routes
    relay: Relay

    def close(self) -> None:
        self.relay.leases.close()
        for destination in self.relay.destinations.values():
            destination.close()
        self.db.kw["bind"].dispose()
        tracing.stop()


def open_app(settings: Settings, *, threads: int, only: str | None = None) -> App:
    """Open the database and all destinations, or only one, and register them. Raises ConfigurationError."""
    logs.configure(settings.log_level)
    tracing.start("holdfast-worker")
    routes = load_routes(settings)
    served = _served(routes, only)
    # Connections are not checked before use: a drain that meets a broken one is repeated at the next wake-up.
    db = database.sessions(
        database.connect(settings, connections=threads + SPARE_CONNECTIONS, checked=False, by_index=True)
    )
    with db.begin() as session:
        routes_in_force.require(session, routes, who=user_at_host())
        outbox.register(session, served)
    metrics.begin(served)
    stopping = Event()
    health = {name: Health(Pace(stopping)) for name in served}
    relay = Relay(
        db=db,
        routes=served,
        destinations=_open(routes, served, settings, db, {name: one.pace for name, one in health.items()}),
        leases=Leases(db),
        health=health,
        stopping=stopping,
    )
    return App(settings=settings, db=db, routes=routes, relay=relay)


def _served(routes: Routes, only: str | None) -> Mapping[str, Route]:
    served = {route.name: route for route in routes.destinations if only in (None, route.name)}
    if not served:
        raise ConfigurationError(
            f"The routes have no destination {only!r}; they have {', '.join(routes.names)}. Check its name, or add it"
            " to the file that HOLDFAST_ROUTES names."
        )
    return served


def _open(
    routes: Routes,
    served: Mapping[str, Route],
    settings: Settings,
    db: sessionmaker[Session],
    paces: Mapping[str, Pace],
) -> Mapping[str, Destination]:
    sinks = {
        route.name: open_sink(route, settings, paces[route.name]) for route in routes.sinks if route.name in served
    }
    steps = {
        route.name: open_step(route, settings, db, routes, paces[route.name])
        for route in routes.steps
        if route.name in served
    }
    return sinks | steps
