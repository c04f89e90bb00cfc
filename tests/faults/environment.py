"""What goes on around a fault: a cluster under load, and a target that pauses at its checkpoint."""

import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text

from deploy.embedded import PostgreSQL
from domain.items import Item
from domain.outbox.table import destinations, lanes, outbox, pending
from domain.runtime.pruning import PRUNE_BATCH
from tests.faults.brokers import Broker, brokers, routes_to
from tests.faults.checkpoints import hit_file, may_continue
from tests.proofs.checker import Count, check, count, received_by_sink, wait_until_drained
from tests.proofs.cluster.cluster import Cluster, a_cluster
from tests.proofs.cluster.processes import Process
from tests.proofs.cluster.receiver import Receiver, a_receiver
from tests.proofs.load import Load
from tests.support.waiting import wait_until

#: Rows of one batch to the partner, and calls to it at once, so that some rows are sent and others are not.
BATCH = 5
CONCURRENCY = 2

#: How many holds are made at once, so that some lane has two of them, and how long the target may take to claim it.
HOLDS = 16
CLAIM_SECONDS = 1.0

#: The checker reads every row: with more rows than this it is slow, and a new cluster is opened.
MANY_ROWS = 8_000

#: The first id that is not of an old row.
FIRST_ID = 10_000_000

#: Old rows: one transaction of pruning, and a part of the next.
OLD_ROWS = PRUNE_BATCH + 200

#: Old rows. Pruning must leave those that are dead, and those that were delivered recently.
HISTORY = """
    INSERT INTO outbox (id, event_id, destination, lane, aggregate_id, type, payload, created_at, processed_at, dead_at)
    OVERRIDING SYSTEM VALUE
    SELECT :first + n, gen_random_uuid(), 'archive', 0, gen_random_uuid(), 'booking.created', '{}',
           now() - interval '9 days',
           CASE :state WHEN 'old' THEN now() - interval '8 days' WHEN 'recent' THEN now() - interval '1 day' END,
           CASE :state WHEN 'dead' THEN now() - interval '8 days' END
    FROM generate_series(1, :rows) AS n
"""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class InFlight:
    """What the target reported at its checkpoint: rows by id, connections by PostgreSQL's process ids, its clock."""

    rows: Sequence[int]
    backends: Sequence[int]
    clock: float


@dataclass(frozen=True)
class Target:
    """A process that works until the fault hits it. Files in its `folder` say when it pauses and continues."""

    process: Process
    destination: str
    folder: Path

    def is_ready(self) -> bool:
        return bool(self.process.events("target.ready"))

    def await_hit(self) -> None:
        """Have it pause when it reaches its checkpoint for the next time."""
        hit_file(self.folder, len(self._reports())).touch()

    def in_flight(self) -> InFlight | None:
        """Return what it has in flight, if it pauses at its checkpoint."""
        reports = self._reports()
        if not reports or may_continue(self.folder, len(reports) - 1).exists():
            return None
        return InFlight(**{name: reports[-1][name] for name in ("rows", "backends", "clock")})

    def resume(self) -> None:
        may_continue(self.folder, len(self._reports()) - 1).touch()

    def _reports(self) -> Sequence[Mapping[str, Any]]:
        return self.process.events("checkpoint.reached")


@dataclass
class Environment:
    """A cluster at work, and all that was answered, repeated and fenced in it up to now."""

    cluster: Cluster
    postgresql: PostgreSQL
    receiver: Receiver
    item: Item
    worker: Process
    brokers: Mapping[str, Broker]
    answered: dict[str, UUID] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    fenced: Counter[str] = field(default_factory=Counter)
    _first_free: int = 1
    _judged_up_to: int = 0

    @contextmanager
    def load(self, seed: int) -> Iterator[Load]:
        """Clients reserve while the block runs. Their answers are remembered."""
        (api,) = self.cluster.apis
        name = f"client-{next(_numbers)}"
        with Load([api.port], [self.item.id], seed, clients=2, rest_seconds=0.2, name=name) as load:
            yield load
        assert not load.unexpected
        self.answered |= load.answered

    def start_target(self, checkpoint: str, destination: str, **environment: str) -> Target:
        folder = self.cluster.home / f"target-{next(_numbers)}"
        folder.mkdir()
        command = ["bin/python", "-m", "tests.faults.target", checkpoint, destination, str(folder)]
        return Target(self.cluster.start("target", *command, **environment), destination, folder)

    def wait_for_checkpoint(self, target: Target, prepare: Callable[[], None]) -> InFlight:
        """Give work to the target alone, until it has reached its checkpoint. Return what it has in flight.

        `prepare` makes what it needs beside new events, as soon as it would pause.
        """
        wait_until("the target is ready", lambda: target.is_ready() or not target.process.is_running())
        self.worker.freeze()
        target.await_hit()
        prepare()
        in_flight = wait_until(
            "the target is at its checkpoint", lambda: target.in_flight() or self._give_work_to(target)
        )
        self.worker.thaw()
        assert in_flight is not None
        return in_flight

    def _give_work_to(self, target: Target) -> InFlight | None:
        self.cluster.hold(self.item, HOLDS)
        deadline = time.monotonic() + CLAIM_SECONDS
        wait_until("the target had time enough", lambda: target.in_flight() or time.monotonic() > deadline)
        assert target.process.is_running(), target.process.log.read_text()
        return target.in_flight()

    def add_history(self, state: str = "old", rows: int = OLD_ROWS) -> None:
        """Add rows before all others. Their `state` is old (delivered long ago), recent (delivered), or dead."""
        with self.cluster.db.begin() as session:
            session.execute(text(HISTORY), {"first": self._first_free, "state": state, "rows": rows})
        self._first_free += rows + 1

    def history(self) -> int:
        """Return how many such rows there are."""
        with self.cluster.db.begin() as session:
            return session.execute(select(func.count()).where(outbox.c.id < FIRST_ID)).scalar_one()

    def pending_among(self, ids: Sequence[int]) -> int:
        """Return how many of these rows are pending."""
        with self.cluster.db.begin() as session:
            return session.execute(select(func.count()).where(pending, outbox.c.id.in_(ids))).scalar_one()

    def in_flight_elsewhere(self) -> Counter[str]:
        """Return how many rows the other worker may have sent and not settled, by destination. Freeze it first."""
        pids = self.worker.pids()
        lane = (outbox.c.destination == lanes.c.destination) & (outbox.c.lane == lanes.c.lane)
        statement = select(lanes.c.holder, outbox.c.destination).join(outbox, lane).where(pending)
        with self.cluster.db.begin() as session:
            leased = session.execute(statement.where(lanes.c.holder.is_not(None))).all()
        return Counter(destination for holder, destination in leased if int(holder.split(":")[1]) in pids)

    def is_breaker_open(self, destination: str) -> bool:
        failures = select(destinations.c.failures).where(destinations.c.name == destination)
        with self.cluster.db.begin() as session:
            return bool(session.execute(failures).scalar_one())

    def charged(self) -> Sequence[Any]:
        """Return the rows that were recorded since this was last asked, and have spent an attempt."""
        spent = select(outbox.c.id, outbox.c.destination, outbox.c.attempts, outbox.c.last_error)
        with self.cluster.db.begin() as session:
            charged = session.execute(spent.where(outbox.c.attempts > 0, outbox.c.id > self._judged_up_to)).all()
            self._judged_up_to = session.execute(select(func.max(outbox.c.id))).scalar_one()
        return charged

    def check(self, in_flight: Mapping[str, int]) -> tuple[Count, Mapping[str, int]]:
        """Check all that has happened up to now. Return the count, and the new repeats to each sink.

        `in_flight` are the rows that may have been sent again since the last check. So may the rows that the other
        worker was too slow to settle, which the fence has counted.
        """
        wait_until_drained(self.cluster)
        fenced, before = self._fenced(), self.fenced
        allowed, self.fenced = self.repeats + Counter(in_flight) + (fenced - before), fenced
        counted = check(self.cluster, repeats_at_most=allowed, dead=1, answered=self.answered)
        repeats = Counter({sink: received.repeats for sink, received in received_by_sink(self.cluster).items()})
        new, self.repeats = repeats - self.repeats, repeats
        return counted, new

    def _fenced(self) -> Counter[str]:
        """Return how many rows the fence has kept the other worker from settling, by destination."""
        fenced: Counter[str] = Counter()
        for event in self.worker.events("outbox.fenced"):
            fenced[event["destination"]] += event["rows"]
        return fenced


@dataclass
class Environments:
    """One environment for all cells of the matrix, and a new one after a cell that failed: it would fail the next."""

    postgresql: PostgreSQL
    _open: ExitStack = field(default_factory=ExitStack)
    _environment: Environment | None = None

    @contextmanager
    def cell(self) -> Iterator[Environment]:
        if self._environment and count(self._environment.cluster).recorded > MANY_ROWS:
            self.close()
        if self._environment is None:
            self._environment = self._open.enter_context(an_environment(self.postgresql))
        try:
            yield self._environment
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._environment = None
        self._open.close()


@contextmanager
def an_environment(postgresql: PostgreSQL) -> Iterator[Environment]:
    """Open a cluster with one API, one worker and a scheduler. It has old rows that pruning must leave."""
    with (
        a_receiver() as receiver,
        tempfile.TemporaryDirectory(prefix="brokers-") as home,
        brokers(Path(home)) as opened,
    ):
        options: dict[str, Any] = {"routes": routes_to(opened, BATCH), "listeners": opened}
        with a_cluster(postgresql, receiver=receiver, batch_size=BATCH, concurrency=CONCURRENCY, **options) as cluster:
            with cluster.db.begin() as session:
                session.execute(text(f"ALTER TABLE outbox ALTER id RESTART WITH {FIRST_ID}"))
            cluster.api()
            # Old rows are pruned by the target alone.
            worker = cluster.worker(threads=2, OUTBOX_RETENTION_DAYS="3650")
            cluster.scheduler()
            cluster.partners.ready()
            cluster.apis[0].ready()
            environment = Environment(cluster, postgresql, receiver, cluster.an_item(10_000_000), worker, opened)
            environment.add_history("dead", 1)
            environment.add_history("recent", 1)
            yield environment
