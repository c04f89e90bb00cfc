"""The faults: each strikes a victim that stands at its gate, and lets it go on if it can."""

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
from tests.faults.checkpoints import Point
from tests.faults.environment import InHand, Stage, Victim
from tests.proofs.receiver import healthy
from tests.proofs.waiting import wait_until
from tests.support.requirements import required

#: A lease is over by then, whatever the clocks' last digits say.
MARGIN = timedelta(seconds=0.2)

#: What `faketime` of Debian preloads, in its variant for threads.
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

#: How far off a clock is, in seconds.
OFF_SECONDS = 300


@dataclass
class Scene:
    """Who is struck, where, and in the midst of what. `also` may be sent again as well, by destination."""

    stage: Stage
    victim: Victim
    point: Point
    in_hand: InHand
    also: Counter[str] = field(default_factory=Counter)


#: Strikes at the beginning of the block, in which the victim is let go on, and mends what must be mended at its end.
Strike = Callable[[Scene], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`clock_off` is by how many seconds the victim's clock is wrong from its start; one that `kills` leaves none."""

    strike: Strike
    clock_off: int = 0
    kills: bool = False

    def environment(self) -> Mapping[str, str]:
        """Return what the victim is started with."""
        if not self.clock_off:
            return {}
        required("libfaketime", FAKETIME.exists(), "faketime")
        offset = f"{self.clock_off:+d}s"
        return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@contextmanager
def kill(scene: Scene) -> Iterator[None]:
    scene.victim.process.kill()
    yield


@contextmanager
def freeze(scene: Scene) -> Iterator[None]:
    """SIGSTOP until its lease is over, and where others can, until they have done its work; then SIGCONT."""
    house, thawed_after = scene.stage.house, scene.stage.house.now() + LEASE + MARGIN
    scene.victim.process.freeze()
    wait_until("the lease is over", lambda: house.now() > thawed_after)
    if scene.point.holds_lane:
        wait_until("others have done its work", lambda: not scene.stage.left_behind(scene.in_hand.rows))
    scene.victim.process.thaw()
    yield
    if scene.point.holds_lane:
        wait_until("the fence stops it", lambda: scene.victim.process.events("outbox.fenced"))


@contextmanager
def terminate(scene: Scene) -> Iterator[None]:
    """Its connections are cut by the server, that of its heartbeat among them."""
    cut = text("SELECT count(*) FROM unnest(CAST(:pids AS int[])) AS pid WHERE pg_terminate_backend(pid, 5000)")
    with scene.stage.house.db.begin() as session:
        assert session.execute(cut, {"pids": scene.in_hand.backends}).scalar_one() > 0, "It had no connection."
    yield


@contextmanager
def crash_postgresql(scene: Scene) -> Iterator[None]:
    """Nobody is told, nobody is restarted. What the other worker has in hand may go out again, too."""
    scene.stage.worker.freeze()
    scene.also.update(scene.stage.in_flight())
    scene.stage.postgresql.stop("immediate")
    scene.stage.worker.thaw()
    scene.stage.postgresql.start()
    yield


@contextmanager
def flush_redis(scene: Scene) -> Iterator[None]:
    with Redis.from_url(scene.stage.house.redis.url) as redis:
        redis.flushall()
    yield


@contextmanager
def take_down(scene: Scene) -> Iterator[None]:
    """Partner and confirmation service answer 503 until that is noticed."""
    stage = scene.stage
    stage.receiver.rule = lambda _: 503
    stage.house.partners.turn(outage=True)
    yield
    wait_until("the outage is noticed", lambda: stage.is_known_down(scene.victim.destination))
    stage.receiver.rule = healthy
    stage.house.partners.turn()
    wait_until("the return is noticed", lambda: not stage.is_known_down(scene.victim.destination))


@contextmanager
def nothing_more(scene: Scene) -> Iterator[None]:
    """Its clock has been wrong from its start."""
    yield


FAULTS: Mapping[str, Fault] = {
    "killed": Fault(strike=kill, kills=True),
    "frozen": Fault(strike=freeze),
    "backend-terminated": Fault(strike=terminate),
    "postgresql-restarted": Fault(strike=crash_postgresql),
    "redis-flushed": Fault(strike=flush_redis),
    "destination-down": Fault(strike=take_down),
    "clock-ahead": Fault(strike=nothing_more, clock_off=OFF_SECONDS),
    "clock-behind": Fault(strike=nothing_more, clock_off=-OFF_SECONDS),
}


def check_its_clock(fault: Fault, in_hand: InHand) -> None:
    """Check that the victim's clock is as wrong as it was meant to be."""
    off = in_hand.clock - time.time()
    assert abs(off - fault.clock_off) < OFF_SECONDS / 2, f"Its clock is {off:.0f} s off, not {fault.clock_off} s."
