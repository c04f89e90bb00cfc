"""What a process of the worker side is made of, and how it is opened and closed."""

from dataclasses import dataclass
from threading import Event

from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import routes_file
from domain.runtime import database, telemetry
from domain.runtime.settings import Settings, refuse_to_start
from worker.destinations import open_destination
from worker.relay.concurrency_limits import ConcurrencyLimits
from worker.relay.leases import Leases
from worker.relay.relay import Relay
from worker.telemetry import metrics

#: Each draining thread uses one connection at a time, the heartbeat another.
SPARE_CONNECTIONS = 2


@dataclass(frozen=True, kw_only=True)
class App:
    """The database, and the drain with its open destinations."""

    settings: Settings
    db: sessionmaker[Session]
    drain: Relay

    def close(self) -> None:
        self.drain.leases.close()
        for destination in self.drain.destinations.values():
            destination.close()
        self.db.kw["bind"].dispose()
        telemetry.stop_tracing()


def open_app(settings: Settings, *, threads: int, only: str | None = None) -> App:
    """Open the database and every destination, or only that one. Makes them known to the database."""
    telemetry.configure(settings.log_level)
    telemetry.start_tracing("holdfast-worker")
    wanted = routes_file.load(settings)
    by_name = {route.name: route for route in wanted.destinations if only in (None, route.name)}
    if not by_name:
        names = ", ".join(route.name for route in wanted.destinations)
        refuse_to_start(f"There is no destination {only!r}; those that there are: {names}.")
    db = database.sessions(
        # The next ring tries again.
        database.connect(settings, connections=threads + SPARE_CONNECTIONS, checked=False, by_index=True),
        routes=wanted,
    )
    with db.begin() as session:
        outbox.register(session, by_name)
    metrics.begin(by_name)
    stopping = Event()
    destinations = {name: open_destination(route, settings, db, stopping) for name, route in by_name.items()}
    drain = Relay(
        db=db,
        routes=by_name,
        destinations=destinations,
        leases=Leases(db),
        shares=ConcurrencyLimits(by_name, threads),
        stopping=stopping,
    )
    return App(settings=settings, db=db, drain=drain)
