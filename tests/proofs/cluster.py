"""A whole Holdfast of its own: database, Redis, partners, and as many of each process as a proof wants."""

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

import httpx
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from api.reservations.schemas import render_reservation
from deploy.embedded import PostgreSQL, RedisServer
from domain import reservations
from domain.items.table import table
from domain.outbox import routes_file
from domain.outbox.table import lane_of, lanes
from domain.reservations import Change, Reservation
from domain.reservations.lifecycle import Status
from domain.runtime import database
from domain.runtime.settings import Settings
from examples.partners.webhooks import DEMO_SECRET
from migrations.main import migrate
from tests.proofs.partners import Listener, Partners
from tests.proofs.processes import Process, free_port
from tests.proofs.receiver import Receiver
from tests.proofs.waiting import wait_until
from tests.support.builders import a_request
from worker.broker import connect
from worker.scheduler import ring

#: Connections of a proof itself: the most that one of them opens at once.
CONNECTIONS = 40

#: Longer than any proof.
A_WHILE = timedelta(minutes=15)

_numbers = itertools.count(1)


@dataclass
class House:
    """What a proof can start, break and look into. `environment` is what every process gets."""

    home: Path
    environment: dict[str, str]
    redis: RedisServer
    partners: Partners
    receiver: Listener
    db: sessionmaker[Session]
    started: list[Process] = field(default_factory=list)
    apis: list["Api"] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)

    def start(self, name: str, *command: str, **environment: str) -> Process:
        """Start a program with the settings of this house."""
        log = self.home / f"{name}-{len(self.started)}.log"
        process = Process.start(name, command, self.environment | environment, log)
        self.started.append(process)
        return process

    def api(self, port: int | None = None, **environment: str) -> "Api":
        """Start an API. It is awaited when it is first needed: see `Api.ready`."""
        port = port or free_port()
        api = Api(port, self.start("api", "bin/api", PORT=str(port), **environment))
        self.apis.append(api)
        return api

    def worker(self, *, processes: int = 1, threads: int = 4, **environment: str) -> Process:
        command = ["bin/worker", "--processes", str(processes), "--threads", str(threads)]
        self.workers.append(self.start("worker", *command, **environment))
        return self.workers[-1]

    def scheduler(self) -> Process:
        return self.start("scheduler", "bin/scheduler")

    def start_partners(self) -> None:
        """Start the partners, where they were before if they have been stopped."""
        command = ["bin/python", "-m", "examples.partners.app", "--port", str(self.partners.port)]
        self.partners.process = self.start("partners", *command)

    def drain(self, *arguments: str) -> str:
        """Run `bin/process-outbox` once. Return what it says."""
        process = self.start("cron", "bin/process-outbox", *arguments)
        process.popen.wait(120)
        return process.log.read_text()

    def ring(self) -> None:
        """Wake a worker once, as the API does after a commit."""
        broker, waiting = connect(self.redis.url, [])
        ring(broker, waiting, "process_outbox")
        broker.close()

    def now(self) -> datetime:
        """Return the database's clock."""
        with self.db.begin() as session:
            return database.now(session)

    def an_item(self, quantity: int, sku: str | None = None) -> table.Item:
        name = sku or f"THING-{next(_numbers)}"
        with self.db.begin() as session:
            return table.create(session, sku=name, name=name, available_quantity=quantity)

    def available(self, item: table.Item) -> int:
        with self.db.begin() as session:
            return table.get(session, item.id).available_quantity

    def hold(
        self, item: table.Item, times: int = 1, *, lane: int | None = None, lasting: timedelta = A_WHILE
    ) -> list[UUID]:
        """Make so many holds of one unit in one transaction, in any lane or in that one. Return their ids."""
        made: list[UUID] = []
        while not made:
            with self.db() as session:
                made = reserved(session, item, times, lasting)
                if lane is not None and {lane_of(one) for one in made} != {lane}:
                    made = []
                    continue  # and roll back
                session.commit()
        return made

    def cancel(self, ids: Sequence[UUID]) -> None:
        """Cancel reservations in one transaction."""
        with self.db.begin() as session:
            held = reservations.lock(session, ids)
            reservations.transition(session, [Change(of=one, to=Status.CANCELLED) for one in held])

    def holders(self) -> Mapping[int, set[tuple[str, int]]]:
        """Return the lanes that are held at this moment, by the id of the process that holds them."""
        statement = select(lanes.c.destination, lanes.c.lane, lanes.c.holder).where(
            lanes.c.holder.is_not(None), lanes.c.leased_until > func.clock_timestamp()
        )
        held: dict[int, set[tuple[str, int]]] = {}
        with self.db.begin() as session:
            for destination, lane, holder in session.execute(statement):
                held.setdefault(int(holder.split(":")[1]), set()).add((destination, lane))
        return held

    def held_by(self, worker: Process) -> set[tuple[str, int]]:
        """Return the lanes that a worker holds at this moment."""
        pids = worker.pids()
        return {lane for pid, held in self.holders().items() if pid in pids for lane in held}

    def in_hand(self, destination: str) -> int:
        """Return how many lanes of a destination are held at this moment."""
        return sum(at == destination for held in self.holders().values() for at, _ in held)

    def log_of(self, event: str) -> list[dict[str, Any]]:
        """Return the log events of that name, of all processes."""
        return [found for process in self.started for found in process.events(event)]

    def journal(self) -> Path:
        """Return the file that the destination `journal` writes."""
        return self.home / "journal.jsonl"

    def close(self) -> None:
        """Kill whatever runs, and wait until it is gone."""
        for process in self.started:
            process.kill()
        self.db.kw["bind"].dispose()


def wait_until_in_mid_delivery(house: House, *destinations: str, lanes: int = 1) -> None:
    """Ring until so many lanes of these destinations are held."""

    def is_calling() -> bool:
        house.ring()
        return sum(map(house.in_hand, destinations)) >= lanes

    wait_until("lanes are in mid-delivery", is_calling)


def reserved(session: Session, item: table.Item, times: int, lasting: timedelta = A_WHILE) -> list[UUID]:
    """Hold one unit so many times, without a commit. Return the ids of the reservations."""
    made: list[UUID] = []

    def render(one: Reservation) -> str:
        made.append(one.id)
        return render_reservation(one)

    reservations.reserve(session, [a_request(item, hold_for=lasting)] * times, render)
    return made


@dataclass(frozen=True)
class Api:
    """An API process and where it listens."""

    port: int
    process: Process

    def is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health/ready", trust_env=False).is_success
        return False

    def ready(self) -> "Api":
        wait_until(f"the API serves at port {self.port}", lambda: self.is_ready() or not self.process.is_running())
        assert self.process.is_running(), self.process.log.read_text()
        return self


@contextmanager
def a_house(
    postgresql: PostgreSQL,
    *,
    batch_size: int = 10,
    concurrency: int = 4,
    max_attempts: int = 12,
    receiver: Receiver | None = None,
    **environment: str,
) -> Iterator[House]:
    """Open a house on a fresh database, with partners that start at once. Everything in it ends with the block.

    `batch_size`, `concurrency` and `max_attempts` are those of the destination `partner`:
    the webhook receiver of the partners, or another one.
    """
    # A Unix socket's path has 107 characters at the most: pytest's own folders can be deeper.
    home = Path(tempfile.mkdtemp(prefix="proof-"))
    redis = RedisServer(home / "redis")
    partners = Partners(free_port())
    settings = _settings(postgresql, home, redis, partners) | environment
    (home / "routes.toml").write_text(
        ROUTES.format(
            home=home,
            url=receiver.url if receiver else f"http://127.0.0.1:{partners.port}/webhooks",
            secret=DEMO_SECRET,
            batch_size=batch_size,
            concurrency=concurrency,
            max_attempts=max_attempts,
        )
    )
    house = House(home, settings, redis, partners, receiver or partners, _migrated(settings))
    try:
        house.start_partners()
        yield house
    finally:
        house.close()
        with suppress(Exception):
            redis.stop()
        partners.close()
        shutil.rmtree(home, ignore_errors=True)


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
"""


def _settings(postgresql: PostgreSQL, home: Path, redis: RedisServer, partners: Partners) -> dict[str, str]:
    return {
        "HOLDFAST_HOME": str(home),
        "DATABASE_URL": postgresql.create(f"proof_{os.getpid()}_{next(_numbers)}"),
        "REDIS_URL": redis.url,
        "HOLDFAST_ROUTES": str(home / "routes.toml"),
        "CONFIRMATION_URL": f"http://127.0.0.1:{partners.port}/confirmations",
        "WEBHOOK_PRIVATE_NETWORKS": "127.0.0.0/8",
    }


def _migrated(environment: Mapping[str, str]) -> sessionmaker[Session]:
    """Migrate the database, and return sessions that record for the same destinations as the processes do."""
    names = {"DATABASE_URL", "HOLDFAST_ROUTES", "CONFIRMATION_URL"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({name: environment[name] for name in names})
    try:
        migrate()
        settings = Settings.load()
        return database.sessions(database.connect(settings, connections=CONNECTIONS), routes=routes_file.load(settings))
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
