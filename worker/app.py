"""The parts of a process that delivers: the database, the routes, and the relay with its open destinations."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event

from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.fulfilment import load_routes
from domain.outbox import LEASE, Route, Routes
from domain.outbox.operations import routes_in_force
from domain.runtime import database, logs, tracing
from domain.runtime.errors import ConfigurationError
from domain.runtime.identity import user_at_host
from domain.runtime.settings import Settings
from worker.destinations import Destination, open_sink, open_step
from worker.ordering.pace import Pace
from worker.relay.health import Health
from worker.relay.late_answers import LateAnswers
from worker.relay.leases import Leases
from worker.relay.liveness import Liveness
from worker.relay.relay import Relay
from worker.telemetry import metrics

#: The connections of a process beside those of its threads: one is for late answers.
SPARE_CONNECTIONS = 2

#: All destinations share the connections, and each of their threads uses one for some milliseconds at a time. If one
#: gives up waiting, the answers that it has got are thrown away, and their events are sent again. So nobody gives up
#: while the queue moves. It moves without a database too: then each use of a connection fails within 3 s.
WAIT_SECONDS = 60.0

#: No transaction of a worker takes as long, not even of a job of maintenance. A connection that is used for longer
#: hangs: what stands between the worker and PostgreSQL swallows the answers, and the thread would wait for ever.
TRANSACTION_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class App:
    """The parts of a process that delivers."""

    settings: Settings
    db: sessionmaker[Session]
    #: For the leases.
    renewing: sessionmaker[Session]
    routes: Routes
    relay: Relay
    liveness: Liveness

    def close(self, grace_seconds: float = 0.0) -> None:
        """Close everything. Calls that have begun get this time to end."""
        self.relay.close(grace_seconds)
        # Not before its lanes are released, or others would take this process for dead.
        self.liveness.close()
        for db in (self.db, self.renewing):
            db.kw["bind"].dispose()
        tracing.stop()


def open_app(settings: Settings, *, threads: int, only: str | None = None) -> App:
    """Open the database and all destinations, or only one, and register them. Raises ConfigurationError."""
    logs.configure(settings.log_level)
    tracing.start("holdfast-worker")
    routes = load_routes(settings)
    served = _served(routes, only)
    # Connections are not checked before use: a drain that meets a broken one is repeated at the next wake-up.
    db = database.sessions(
        database.connect(
            settings,
            connections=threads + SPARE_CONNECTIONS,
            wait_seconds=WAIT_SECONDS,
            checked=False,
            transaction_seconds=TRANSACTION_SECONDS,
            by_index=True,
        )
    )
    # A connection of its own, so that the leases are renewed however many threads wait for one.
    renewing = database.sessions(
        database.connect(
            settings, connections=1, checked=False, transaction_seconds=LEASE.total_seconds(), by_index=True
        )
    )
    with ExitStack() as undo:
        for each in (db, renewing):
            undo.callback(each.kw["bind"].dispose)
        with db.begin() as session:
            routes_in_force.require(session, routes, who=user_at_host())
            outbox.register(session, served)
        metrics.begin(served)
        stopping, liveness = Event(), Liveness(settings, db)
        health = {name: Health(Pace(stopping)) for name in served}
        relay = Relay(
            db=db,
            routes=served,
            destinations=_open(routes, served, settings, db, {name: one.pace for name, one in health.items()}),
            leases=Leases(renewing),
            late_answers=LateAnswers(db),
            health=health,
            stopping=stopping,
            liveness_key=liveness.key,
        )
        liveness.start()
        app = App(settings=settings, db=db, renewing=renewing, routes=routes, relay=relay, liveness=liveness)
        undo.pop_all()
    return app


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
