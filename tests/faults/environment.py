"""What goes on around a fault: a house at work under load, and a victim that stops where it is to be struck."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from sqlalchemy import func, select, text

from deploy.embedded import PostgreSQL
from domain.items.table import Item
from domain.outbox.prune import PRUNE_BATCH
from domain.outbox.table import destinations, lanes, outbox, pending
from tests.proofs.checker import Count, check, count, received_by_sink, wait_until_drained
from tests.proofs.cluster import House, a_house
from tests.proofs.load import Customers
from tests.proofs.processes import Process
from tests.proofs.receiver import Receiver, a_receiver
from tests.proofs.waiting import wait_until

#: Rows of one batch to the partner, and calls to it at once: some have left, some have not.
BATCH = 5
CONCURRENCY = 2

#: Holds that are made at once, so that some lane has two, and how long they are left to the victim.
BAIT = 16
BAIT_SECONDS = 1.0

#: The checker knows every commit: with more rows than this it takes its time, and a new house is opened.
MANY_ROWS = 5_000

#: Where rows begin that are not history.
FIRST_ID = 10_000_000

#: Old rows: one transaction of pruning, and a part of the next.
OLD_ROWS = PRUNE_BATCH + 200

#: What pruning must leave: it is old as well, and dead, or old and has left lately.
HISTORY = """
    INSERT INTO outbox (id, event_id, destination, lane, aggregate_id, type, payload, created_at, processed_at, dead_at)
    OVERRIDING SYSTEM VALUE
    SELECT :first + n, gen_random_uuid(), 'archive', 0, gen_random_uuid(), 'booking.created', '{}',
           now() - interval '9 days',
           CASE :state WHEN 'old' THEN now() - interval '8 days' WHEN 'lately' THEN now() - interval '1 day' END,
           CASE :state WHEN 'dead' THEN now() - interval '8 days' END
    FROM generate_series(1, :rows) AS n
"""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class InHand:
    """What the victim has in hand at its gate: rows by id, connections by PostgreSQL's process ids, its clock."""

    rows: Sequence[int]
    backends: Sequence[int]
    clock: float


@dataclass(frozen=True)
class Victim:
    """A process that works until it is struck. It is let go on when the file `go` is there."""

    process: Process
    destination: str
    go: Path

    def is_ready(self) -> bool:
        return bool(self.process.events("victim.ready"))

    def in_hand(self) -> InHand | None:
        """Return what it has in hand, if it stands at its gate."""
        reports = self.process.events("gate.reached")
        return InHand(**{name: reports[0][name] for name in ("rows", "backends", "clock")}) if reports else None

    def go_on(self) -> None:
        self.go.touch()


@dataclass
class Stage:
    """A house at work, and what has come of it up to now."""

    house: House
    postgresql: PostgreSQL
    receiver: Receiver
    item: Item
    worker: Process
    answered: dict[str, UUID] = field(default_factory=dict)
    repeats: Counter[str] = field(default_factory=Counter)
    fenced: Counter[str] = field(default_factory=Counter)
    _first_free: int = 1

    @contextmanager
    def load(self, seed: int) -> Iterator[Customers]:
        """Customers come while the block runs. What they were answered is remembered."""
        (api,) = self.house.apis
        name = f"customer-{next(_numbers)}"
        with Customers([api.port], [self.item.id], seed, customers=2, rest_seconds=0.2, name=name) as load:
            yield load
        assert not load.unexpected
        self.answered |= load.answered

    def start_victim(self, point: str, destination: str, **environment: str) -> Victim:
        go = self.house.home / f"go-{next(_numbers)}"
        command = ["bin/python", "-m", "tests.faults.target", point, destination, str(go)]
        return Victim(self.house.start("victim", *command, **environment), destination, go)

    def caught(self, victim: Victim) -> InHand:
        """Leave some holds to the victim until it stands at its gate. Return what it has in hand."""
        wait_until("the victim is ready", lambda: victim.is_ready() or not victim.process.is_running())
        self.worker.freeze()
        in_hand = wait_until("the victim is at its gate", lambda: victim.in_hand() or self._bait(victim))
        self.worker.thaw()
        assert in_hand is not None
        return in_hand

    def _bait(self, victim: Victim) -> InHand | None:
        self.house.hold(self.item, BAIT)
        deadline = time.monotonic() + BAIT_SECONDS
        wait_until("the bait is old", lambda: victim.in_hand() or time.monotonic() > deadline)
        assert victim.process.is_running(), victim.process.log.read_text()
        return victim.in_hand()

    def grow_old(self, state: str = "old", rows: int = OLD_ROWS) -> None:
        """Put history before all rows that are there: it left long ago, left lately, or is dead."""
        with self.house.db.begin() as session:
            session.execute(text(HISTORY), {"first": self._first_free, "state": state, "rows": rows})
        self._first_free += rows + 1

    def old_rows(self) -> int:
        """Return how much history there is."""
        with self.house.db.begin() as session:
            return session.execute(select(func.count()).where(outbox.c.id < FIRST_ID)).scalar_one()

    def left_behind(self, ids: Sequence[int]) -> int:
        """Return how many of these rows have not left."""
        with self.house.db.begin() as session:
            return session.execute(select(func.count()).where(pending, outbox.c.id.in_(ids))).scalar_one()

    def in_flight(self) -> Counter[str]:
        """Return the rows that the other worker may have sent and not settled, by destination. Freeze it before."""
        pids = self.worker.pids()
        lane = (outbox.c.destination == lanes.c.destination) & (outbox.c.lane == lanes.c.lane)
        statement = select(lanes.c.holder, outbox.c.destination).join(outbox, lane).where(pending)
        with self.house.db.begin() as session:
            held = session.execute(statement.where(lanes.c.holder.is_not(None))).all()
        return Counter(destination for holder, destination in held if int(holder.split(":")[1]) in pids)

    def is_known_down(self, destination: str) -> bool:
        failures = select(destinations.c.failures).where(destinations.c.name == destination)
        with self.house.db.begin() as session:
            return bool(session.execute(failures).scalar_one())

    def check(self, in_hand: Mapping[str, int]) -> tuple[Count, Mapping[str, int]]:
        """Check all that has happened up to now. Return the count, and the new repeats to each sink.

        `in_hand` are the rows that may have been sent again since the last check. What the other
        worker was too slow to settle may have been as well: the fence has counted it.
        """
        wait_until_drained(self.house)
        fenced, before = self._fenced(), self.fenced
        allowed, self.fenced = self.repeats + Counter(in_hand) + (fenced - before), fenced
        counted = check(self.house, repeats_at_most=allowed, dead=1, answered=self.answered)
        repeats = Counter({sink: received.repeats for sink, received in received_by_sink(self.house).items()})
        new, self.repeats = repeats - self.repeats, repeats
        return counted, new

    def _fenced(self) -> Counter[str]:
        """Return the rows that the fence has kept the other worker from settling, by destination."""
        fenced: Counter[str] = Counter()
        for event in self.worker.events("outbox.fenced"):
            fenced[event["destination"]] += event["rows"]
        return fenced


@dataclass
class Stages:
    """One stage for all cells of the matrix, and a new one after a cell that failed: the next would fail with it."""

    postgresql: PostgreSQL
    _open: ExitStack = field(default_factory=ExitStack)
    _stage: Stage | None = None

    @contextmanager
    def cell(self) -> Iterator[Stage]:
        if self._stage and count(self._stage.house).recorded > MANY_ROWS:
            self.close()
        if self._stage is None:
            self._stage = self._open.enter_context(a_stage(self.postgresql))
        try:
            yield self._stage
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stage = None
        self._open.close()


@contextmanager
def a_stage(postgresql: PostgreSQL) -> Iterator[Stage]:
    """Open a house with one API, one worker and a scheduler. It has a history that pruning must leave alone."""
    with a_receiver() as receiver:
        with a_house(postgresql, receiver=receiver, batch_size=BATCH, concurrency=CONCURRENCY) as house:
            with house.db.begin() as session:
                session.execute(text(f"ALTER TABLE outbox ALTER id RESTART WITH {FIRST_ID}"))
            house.api()
            worker = house.worker(threads=2)
            house.scheduler()
            house.partners.ready()
            house.apis[0].ready()
            stage = Stage(house, postgresql, receiver, house.an_item(10_000_000), worker)
            stage.grow_old("dead", 1)
            stage.grow_old("lately", 1)
            yield stage
