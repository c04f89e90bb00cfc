"""A complete Holdfast: a database, a Redis, partners, and as many processes of each kind as a proof needs."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from api.reservations.schemas import render_reservation
from deploy.embedded import PostgreSQL, RedisServer
from domain import calendars, items, reservations
from domain.fulfilment import load_routes
from domain.idempotency import Answered
from domain.outbox import Routes
from domain.outbox.table import calls, destinations, lane_of, lanes, outbox, waiting
from domain.reservations import Change, Deferred, Reservation, Reserve
from domain.reservations.lifecycle import Status
from domain.runtime import database
from domain.runtime.errors import Refusal
from domain.runtime.settings import Settings
from domain.runtime.wakeups import PROCESS_OUTBOX
from examples.partners.webhooks import DEMO_SECRET
from migrations.main import migrate
from tests.proofs.cluster.partners import Listener, Partners
from tests.proofs.cluster.processes import Api, Grpc, Process
from tests.proofs.cluster.receiver import Receiver
from tests.support.builders import a_request
from tests.support.ports import free_port
from worker.broker import connect
from worker.scheduler import wake

#: Connections of the proof itself: the most that any proof opens at once.
CONNECTIONS = 40

#: Longer than any proof.
A_WHILE = timedelta(minutes=15)

_numbers = itertools.count(1)


@dataclass
class Cluster:
    """The parts that a proof can start, break and examine. `environment` is what every process gets."""

    home: Path
    environment: dict[str, str]
    redis: RedisServer
    partners: Partners
    receiver: Listener
    db: sessionmaker[Session]
    routes: Routes
    #: The receivers of further destinations, by name. The checker asks them as well.
    listeners: Mapping[str, Listener] = field(default_factory=dict)
    started: list[Process] = field(default_factory=list)
    apis: list[Api] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)

    def start(self, name: str, *command: str, **environment: str) -> Process:
        """Start a program with the settings of this cluster."""
        log = self.home / f"{name}-{len(self.started)}.log"
        process = Process.start(name, command, self.environment | environment, log)
        self.started.append(process)
        return process

    def api(self, port: int | None = None, **environment: str) -> Api:
        """Start an API, without waiting until it serves (see `Api.ready`)."""
        port = port or free_port()
        api = Api(port, self.start("api", "bin/api", PORT=str(port), **environment))
        self.apis.append(api)
        return api

    def grpc(self) -> Grpc:
        """Start a gRPC service, without waiting until it serves (see `Grpc.ready`)."""
        port = free_port()
        return Grpc(port, self.start("grpc", "bin/grpc", GRPC_PORT=str(port), GRPC_METRICS_PORT="0"))

    def worker(self, *, processes: int = 1, threads: int = 4, **environment: str) -> Process:
        command = ["bin/worker", "--processes", str(processes), "--threads", str(threads)]
        self.workers.append(self.start("worker", *command, **environment))
        return self.workers[-1]

    def scheduler(self) -> Process:
        return self.start("scheduler", "bin/scheduler")

    def start_partners(self) -> None:
        """Start the partners, at the same port again if they were stopped."""
        command = ["bin/python", "-m", "examples.partners.app", "--port", str(self.partners.port)]
        self.partners.process = self.start("partners", *command)

    def drain(self, *arguments: str) -> str:
        """Run `bin/process-outbox` once. Return its output."""
        process = self.start("cron", "bin/process-outbox", *arguments)
        process.popen.wait(120)
        return process.log.read_text()

    def wake(self) -> None:
        """Wake a worker once, as the API does after a commit."""
        broker, waiting_in = connect(self.redis.url, [])
        wake(broker, waiting_in, PROCESS_OUTBOX)
        broker.close()

    def now(self) -> datetime:
        """Return the database's time."""
        with self.db.begin() as session:
            return database.now(session)

    def pause(self, *names: str) -> None:
        """Pause these destinations, and resume all others."""
        with self.db.begin() as session:
            session.execute(update(destinations).values(paused=destinations.c.name.in_(names)))

    def skip_pauses(self) -> None:
        """End the pauses of all retries and circuit breakers, as if their time had passed.

        The row of a call in flight goes on waiting for the call's answer.
        """
        later = outbox.c.available_at > func.clock_timestamp()
        in_flight = select(calls.c.id).where(calls.c.id == outbox.c.id).exists()
        is_open = destinations.c.open_until > func.clock_timestamp()
        # In two transactions, because a worker that settles locks the destination before its rows.
        with self.db.begin() as session:
            session.execute(
                update(outbox).where(waiting, later, ~in_flight).values(available_at=func.clock_timestamp())
            )
        with self.db.begin() as session:
            session.execute(update(destinations).where(is_open).values(open_until=func.clock_timestamp()))

    def destinations(self) -> Sequence[str]:
        """Return the names of the destinations that a worker has registered, which it does when it is ready."""
        with self.db.begin() as session:
            return session.execute(select(destinations.c.name)).scalars().all()

    def an_item(self, quantity: int, sku: str | None = None) -> items.Item:
        name = sku or f"THING-{next(_numbers)}"
        with self.db.begin() as session:
            return items.create(session, sku=name, name=name, available_quantity=quantity)

    def a_calendar(self, capacity: int, **settings: Any) -> items.Item:
        name = f"ROOM-{next(_numbers)}"
        with self.db.begin() as session:
            given = calendars.Settings(capacity=capacity, time_zone="UTC", **settings)
            return calendars.create(session, sku=name, name=name, settings=given)

    def available(self, item: items.Item) -> int:
        with self.db.begin() as session:
            return items.get(session, item.id).available_quantity

    def hold(
        self, item: items.Item, times: int = 1, *, lane: int | None = None, lasting: timedelta = A_WHILE
    ) -> list[UUID]:
        """Make this many holds of one unit in one transaction, in any lane or in that one. Return their ids."""
        while True:
            with self.db() as session:
                made = self.hold_in(session, item, times, lasting)
                if lane is None or {lane_of(one) for one in made} == {lane}:
                    session.commit()
                    return made

    def hold_in(self, session: Session, item: items.Item, times: int, lasting: timedelta = A_WHILE) -> list[UUID]:
        """Hold one unit this many times, without a commit. Return the ids of the reservations."""
        made: list[UUID] = []

        def render(one: Reservation) -> str:
            made.append(one.id)
            return render_reservation(one)

        reservations.reserve(session, [a_request(item, hold_for=lasting, render=render)] * times, self.routes)
        return made

    def reserve(self, *requests: Reserve) -> Sequence[Answered | Refusal | Deferred]:
        """Reserve as one set, in one transaction that waits for the locks of its items, as the patient writer does."""
        with self.db.begin() as session:
            items.lock(session, reservations.named_by(requests))
            return reservations.reserve(session, requests, self.routes)

    def cancel(self, ids: Sequence[UUID]) -> None:
        """Cancel reservations in one transaction, in the order of `ids`. An overdue hold expires instead."""
        with self.db.begin() as session:
            locked = sorted(reservations.lock(session, ids), key=lambda one: ids.index(one.id))
            changes = [Change(of=one, to=Status.CANCELLED) for one in locked]
            reservations.transition(session, changes, self.routes)

    def expire(self, limit: int) -> None:
        """Expire overdue holds in one transaction."""
        with self.db.begin() as session:
            reservations.expire(session, limit, self.routes)

    def leased_lanes(self) -> Mapping[int, set[tuple[str, int]]]:
        """Return the lanes that are leased now, by the id of the process that leased them."""
        statement = select(lanes.c.destination, lanes.c.lane, lanes.c.holder).where(
            lanes.c.holder.is_not(None), lanes.c.leased_until > func.clock_timestamp()
        )
        leased: dict[int, set[tuple[str, int]]] = {}
        with self.db.begin() as session:
            for destination, lane, holder in session.execute(statement):
                leased.setdefault(int(holder.split(":")[1]), set()).add((destination, lane))
        return leased

    def leased_by(self, worker: Process) -> set[tuple[str, int]]:
        """Return the lanes that a worker has leased now."""
        pids = worker.pids()
        return {lane for pid, leased in self.leased_lanes().items() if pid in pids for lane in leased}

    def lanes_leased(self, destination: str) -> int:
        """Return how many lanes of a destination are leased now."""
        return sum(name == destination for leased in self.leased_lanes().values() for name, _ in leased)

    def log_of(self, name: str) -> list[dict[str, Any]]:
        """Return the events of this name in the logs of all processes."""
        return [found for process in self.started for found in process.events(name)]

    def close(self) -> None:
        """Kill all processes that run, and wait for their end."""
        for process in self.started:
            process.kill()
        self.db.kw["bind"].dispose()


@contextmanager
def a_cluster(
    postgresql: PostgreSQL,
    *,
    receiver: Receiver | None = None,
    batch_size: int = 10,
    concurrency: int = 4,
    max_attempts: int = 12,
    first_retry_seconds: float = 1,
    feed: bool = False,
    routes: str = "",
    listeners: Mapping[str, Listener] | None = None,
    services: bool = False,
    **environment: str,
) -> Iterator[Cluster]:
    """Open a cluster on a new database, with partners that start at once. All its processes end with the block.

    The numbers are options of the destination `partner`: the webhook receiver of the partners, or `receiver`. With
    `feed`, there is a feed as well; `routes` are further destinations, and `listeners` their receivers. With
    `services`, bookings need the inventory, the pricing and the payment of the partners.
    """
    # The path of a Unix socket has at most 107 characters, and pytest's own folders may be deeper.
    home = Path(tempfile.mkdtemp(prefix="proof-"))
    redis = RedisServer(home / "redis")
    partners = Partners(free_port())
    settings = _settings(postgresql, home, redis, partners) | environment
    if services:
        settings |= {f"{name.upper()}_URL": f"http://127.0.0.1:{partners.port}/{name}" for name in SERVICES}
    (home / "routes.toml").write_text(
        ROUTES.format(
            home=home,
            url=receiver.url if receiver else f"http://127.0.0.1:{partners.port}/webhooks",
            secret=DEMO_SECRET,
            batch_size=batch_size,
            concurrency=concurrency,
            max_attempts=max_attempts,
            first_retry_seconds=first_retry_seconds,
        )
        + (FEED if feed else "")
        + routes
    )
    cluster = Cluster(home, settings, redis, partners, receiver or partners, *_migrated(settings), listeners or {})
    try:
        cluster.start_partners()
        yield cluster
    finally:
        cluster.close()
        with suppress(Exception):
            redis.stop()
        partners.close()
        shutil.rmtree(home, ignore_errors=True)


#: The services of the partners that bookings need.
SERVICES = ("inventory", "pricing", "payment")

ROUTES = """
[[destination]]
name = "journal"
url = "log:{home}/journal.jsonl"

[[destination]]
name = "partner"
url = "{url}"
events = ["booking.*"]
secret = "{secret}"
batch_size = {batch_size}
concurrency = {concurrency}
max_attempts = {max_attempts}
first_retry_seconds = {first_retry_seconds}
"""

FEED = """
[[destination]]
name = "feed"
url = "feed:"
batch_size = 10
"""


def _settings(postgresql: PostgreSQL, home: Path, redis: RedisServer, partners: Partners) -> dict[str, str]:
    return {
        "HOLDFAST_HOME": str(home),
        "DATABASE_URL": postgresql.create(f"proof_{os.getpid()}_{next(_numbers)}"),
        "REDIS_URL": redis.url,
        "HOLDFAST_ROUTES": str(home / "routes.toml"),
        "CONFIRMATION_URL": f"http://127.0.0.1:{partners.port}/confirmations",
        "AUTH": "none",
        "WEBHOOK_PRIVATE_NETWORKS": "127.0.0.0/8",
    }


def _migrated(environment: Mapping[str, str]) -> tuple[sessionmaker[Session], Routes]:
    """Migrate the database. Return sessions on it, and the routes that the processes have."""
    names = {"DATABASE_URL", "HOLDFAST_ROUTES", "CONFIRMATION_URL", *(f"{name.upper()}_URL" for name in SERVICES)}
    names &= environment.keys()
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: environment[name] for name in names})
    try:
        migrate()
        settings = Settings.load()
        engine = database.connect(settings, connections=CONNECTIONS)
        event.listen(engine, "connect", _allow_idle_transactions)
        return database.sessions(engine), load_routes(settings)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _allow_idle_transactions(connection: psycopg.Connection, _: object) -> None:
    """Let a proof wait for other processes within a transaction, for longer than the product allows."""
    connection.execute("SET idle_in_transaction_session_timeout = 0")
    connection.commit()
