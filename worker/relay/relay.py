"""The relay: it drains the outbox, lane after lane, until nothing is due."""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex

from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import CommitHorizon, ProbeTaken, Route
from worker.destinations import Destination
from worker.relay.concurrency_limits import ConcurrencyLimits
from worker.relay.lane_run import LaneBatch, LaneRun
from worker.relay.leases import Leases
from worker.relay.tally import Tally


@dataclass(frozen=True, kw_only=True)
class Relay:
    """All that draining needs. There is one per process; it is safe for threads."""

    db: sessionmaker[Session]
    routes: Mapping[str, Route]
    destinations: Mapping[str, Destination]
    leases: Leases
    limits: ConcurrencyLimits
    stopping: threading.Event = field(default_factory=threading.Event)
    commit_horizon: CommitHorizon = field(default_factory=CommitHorizon)

    def run(
        self,
        *,
        limit: float = float("inf"),
        until: float = float("inf"),
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> Tally:
        """Deliver due rows until there are none, `limit` rows were tried, or the monotonic clock says `until`."""
        total = Tally()
        while total.tried < limit and time.monotonic() < until and not self.stopping.is_set():
            claimed = self._claim(limit - total.tried)
            if claimed is None:
                break
            total += self._drain(*claimed, limit=limit - total.tried)
            progress(total)
        return total

    def _claim(self, limit: float) -> tuple[LaneRun, LaneBatch] | None:
        """Claim a lane and fetch its first batch, in one transaction. Return None if there is no lane to claim."""
        try:
            with self.db.begin() as session:
                lane = outbox.claim(session, self.limits.with_room(), _holder(), self.commit_horizon)
                if lane is None:
                    return None
                run = self._run_over(lane.destination)
                return run, run.first_batch(session, lane, limit)
        except ProbeTaken:
            return None

    def _run_over(self, destination: str) -> LaneRun:
        return LaneRun(
            db=self.db,
            route=self.routes[destination],
            destination=self.destinations[destination],
            stopping=self.stopping,
        )

    def _drain(self, run: LaneRun, batch: LaneBatch, *, limit: float) -> Tally:
        with self.limits.thread(batch.lane.destination) as has_room:
            if not has_room:
                run.release(batch.lane)
                return Tally()
            with self.leases.renewing(batch.lane):
                return run.drain(batch, limit)


def _holder() -> str:
    """Return a name that no other claim has. It says where the worker runs, and ends in random digits."""
    return f"{socket.gethostname()[:30]}:{os.getpid()}:{token_hex(8)}"
