"""The faults. Each hits a target that pauses at its checkpoint, and lets it continue if it can."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from redis import Redis
from sqlalchemy import text

from domain.outbox.delivery.lanes import LEASE
from tests.faults.checkpoints import Checkpoint
from tests.faults.environment import Environment, InFlight, Target
from tests.faults.outages import outage_of
from tests.support.requirements import required
from tests.support.waiting import wait_until

#: A lease has ended this long after its time, whatever the last digits of the clocks are.
MARGIN = timedelta(seconds=0.2)

#: The library that `faketime` of Debian preloads, in its variant for threads.
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

#: How wrong a clock is, in seconds.
OFF_SECONDS = 300


@dataclass
class Hit:
    """A target at a checkpoint, with its environment. `also` may be sent again as well, by destination."""

    environment: Environment
    target: Target
    checkpoint: Checkpoint
    in_flight: InFlight
    also: Counter[str] = field(default_factory=Counter)


#: Injects the fault when the block begins, and ends a lasting fault with the block. The target resumes in the block.
FaultInjection = Callable[[Hit], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`clock_off` is how wrong the target's clock is from its start, in seconds. With `kills` the target ends.

    In one run the fault hits so many `times`. If the target has survived, it is the same one that is hit again.
    """

    inject: FaultInjection
    times: int = 2
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
def kill(hit: Hit) -> Iterator[None]:
    hit.target.process.kill()
    yield


@contextmanager
def freeze(hit: Hit) -> Iterator[None]:
    """Freeze it until its lease has ended and, where others can do its work, they have done it. Then thaw it."""
    cluster, thawed_after = hit.environment.cluster, hit.environment.cluster.now() + LEASE + MARGIN
    hit.target.process.freeze()
    wait_until("the lease has ended", lambda: cluster.now() > thawed_after)
    if hit.checkpoint.has_lane:
        wait_until("others have done its work", lambda: not hit.environment.pending_among(hit.in_flight.rows))
    known = _stopped(hit.target)
    hit.target.process.thaw()
    yield
    if hit.checkpoint.has_lane:
        wait_until("it is stopped", lambda: _stopped(hit.target) > known)


def _stopped(target: Target) -> int:
    """Return how often it was stopped because it had lost its lease.

    It can't settle what it has sent, and what it has not sent yet, it does not send any more.
    """
    return sum(len(target.process.events(name)) for name in ("outbox.fenced", "lane.not_held"))


@contextmanager
def terminate_backends(hit: Hit) -> Iterator[None]:
    """PostgreSQL ends all connections of the target, including the one that renews its leases."""
    ended = text("SELECT count(*) FROM unnest(CAST(:pids AS int[])) AS pid WHERE pg_terminate_backend(pid, 5000)")
    with hit.environment.cluster.db.begin() as session:
        assert session.execute(ended, {"pids": hit.in_flight.backends}).scalar_one() > 0, "It had no connection."
    yield


@contextmanager
def crash_postgresql(hit: Hit) -> Iterator[None]:
    """PostgreSQL crashes and no process is restarted. What the other worker has in flight may be sent again, too."""
    with _frozen_worker(hit):
        hit.environment.postgresql.stop("immediate")
    hit.environment.postgresql.start()
    yield


@contextmanager
def flush_redis(hit: Hit) -> Iterator[None]:
    with Redis.from_url(hit.environment.cluster.redis.url) as redis:
        redis.flushall()
    yield


@contextmanager
def take_destination_down(hit: Hit) -> Iterator[None]:
    """The destination is down until that is noticed. What the other worker has in flight may be sent again, too."""
    environment, destination = hit.environment, hit.target.destination
    with ExitStack() as outage:
        with _frozen_worker(hit):
            outage.enter_context(outage_of(environment, destination))
        yield
        wait_until("the outage is noticed", lambda: environment.is_breaker_open(destination))
    wait_until("the return is noticed", lambda: not environment.is_breaker_open(destination))


@contextmanager
def _frozen_worker(hit: Hit) -> Iterator[None]:
    """The other worker is frozen while the block runs. What it has in flight may be sent again."""
    hit.environment.worker.freeze()
    hit.also.update(hit.environment.in_flight_elsewhere())
    yield
    hit.environment.worker.thaw()


@contextmanager
def nothing_more(hit: Hit) -> Iterator[None]:
    """The clock of the target was wrong from its start."""
    yield


FAULTS: Mapping[str, Fault] = {
    "killed": Fault(inject=kill, kills=True, times=3),
    "frozen": Fault(inject=freeze),
    "backends-terminated": Fault(inject=terminate_backends, times=3),
    "postgresql-restarted": Fault(inject=crash_postgresql),
    "redis-flushed": Fault(inject=flush_redis, times=3),
    "destination-down": Fault(inject=take_destination_down),
    "clock-ahead": Fault(inject=nothing_more, clock_off=OFF_SECONDS),
    "clock-behind": Fault(inject=nothing_more, clock_off=-OFF_SECONDS),
}


def check_clock(fault: Fault, in_flight: InFlight) -> None:
    """Check that the target's clock is as wrong as the fault wants it to be."""
    off = in_flight.clock - time.time()
    assert abs(off - fault.clock_off) < OFF_SECONDS / 2, f"Its clock is {off:.0f} s off, not {fault.clock_off} s."
