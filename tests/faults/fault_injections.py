"""The faults. Each hits a target that pauses at its checkpoint, and lets it continue if it can."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from redis import Redis
from sqlalchemy import text

from domain.outbox.delivery.lanes import LEASE
from tests.faults.checkpoints import Checkpoint
from tests.faults.environment import Environment, InFlight, Target
from tests.proofs.cluster.receiver import healthy
from tests.support.requirements import required
from tests.support.waiting import wait_until

#: A lease has ended this long after its time, whatever the last digits of the clocks are.
MARGIN = timedelta(seconds=0.2)

#: The library that `faketime` of Debian preloads, in its variant for threads.
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

#: How wrong a clock is, in seconds.
OFF_SECONDS = 300


@dataclass
class Cell:
    """A target at a checkpoint, with its environment. `also` may be sent again as well, by destination."""

    environment: Environment
    target: Target
    checkpoint: Checkpoint
    in_flight: InFlight
    also: Counter[str] = field(default_factory=Counter)


#: Injects the fault when the block begins, and ends a lasting fault with the block. The target resumes in the block.
FaultInjection = Callable[[Cell], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`clock_off` is how wrong the target's clock is from its start, in seconds. With `kills` the target ends."""

    inject: FaultInjection
    clock_off: int = 0
    kills: bool = False

    def environment(self) -> Mapping[str, str]:
        """Return the environment variables that the target is started with."""
        if not self.clock_off:
            return {}
        required("libfaketime", FAKETIME.exists(), "faketime")
        offset = f"{self.clock_off:+d}s"
        return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@contextmanager
def kill(cell: Cell) -> Iterator[None]:
    cell.target.process.kill()
    yield


@contextmanager
def freeze(cell: Cell) -> Iterator[None]:
    """Freeze it until its lease has ended and, where others can do its work, they have done it. Then thaw it."""
    cluster, thawed_after = cell.environment.cluster, cell.environment.cluster.now() + LEASE + MARGIN
    cell.target.process.freeze()
    wait_until("the lease has ended", lambda: cluster.now() > thawed_after)
    if cell.checkpoint.has_lane:
        wait_until("others have done its work", lambda: not cell.environment.pending_among(cell.in_flight.rows))
    cell.target.process.thaw()
    yield
    if cell.checkpoint.has_lane:
        # What it sent before can't be settled; what it had not sent yet, it does not send any more.
        stopped = "outbox.fenced", "lane.not_held"
        wait_until("it is stopped", lambda: any(map(cell.target.process.events, stopped)))


@contextmanager
def terminate_backends(cell: Cell) -> Iterator[None]:
    """PostgreSQL ends all connections of the target, including the one that renews its leases."""
    ended = text("SELECT count(*) FROM unnest(CAST(:pids AS int[])) AS pid WHERE pg_terminate_backend(pid, 5000)")
    with cell.environment.cluster.db.begin() as session:
        assert session.execute(ended, {"pids": cell.in_flight.backends}).scalar_one() > 0, "It had no connection."
    yield


@contextmanager
def crash_postgresql(cell: Cell) -> Iterator[None]:
    """PostgreSQL crashes and no process is restarted. What the other worker has in flight may be sent again, too."""
    cell.environment.worker.freeze()
    cell.also.update(cell.environment.in_flight_elsewhere())
    cell.environment.postgresql.stop("immediate")
    cell.environment.worker.thaw()
    cell.environment.postgresql.start()
    yield


@contextmanager
def flush_redis(cell: Cell) -> Iterator[None]:
    with Redis.from_url(cell.environment.cluster.redis.url) as redis:
        redis.flushall()
    yield


@contextmanager
def take_destination_down(cell: Cell) -> Iterator[None]:
    """The partner and the confirmation service answer 503 until that is noticed."""
    environment = cell.environment
    environment.receiver.rule = lambda _: 503
    environment.cluster.partners.set_knobs(outage=True)
    yield
    wait_until("the outage is noticed", lambda: environment.is_breaker_open(cell.target.destination))
    environment.receiver.rule = healthy
    environment.cluster.partners.set_knobs()
    wait_until("the return is noticed", lambda: not environment.is_breaker_open(cell.target.destination))


@contextmanager
def nothing_more(cell: Cell) -> Iterator[None]:
    """The clock of the target was wrong from its start."""
    yield


FAULTS: Mapping[str, Fault] = {
    "killed": Fault(inject=kill, kills=True),
    "frozen": Fault(inject=freeze),
    "backends-terminated": Fault(inject=terminate_backends),
    "postgresql-restarted": Fault(inject=crash_postgresql),
    "redis-flushed": Fault(inject=flush_redis),
    "destination-down": Fault(inject=take_destination_down),
    "clock-ahead": Fault(inject=nothing_more, clock_off=OFF_SECONDS),
    "clock-behind": Fault(inject=nothing_more, clock_off=-OFF_SECONDS),
}


def check_clock(fault: Fault, in_flight: InFlight) -> None:
    """Check that the target's clock is as wrong as the fault wants it to be."""
    off = in_flight.clock - time.time()
    assert abs(off - fault.clock_off) < OFF_SECONDS / 2, f"Its clock is {off:.0f} s off, not {fault.clock_off} s."
