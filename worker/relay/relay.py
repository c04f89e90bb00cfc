"""The relay: it drains the outbox, lane after lane, until nothing is due."""

import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from secrets import token_hex

from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import CommitHorizon, ProbeTaken, Route
from worker.destinations import Destination
from worker.relay.health import Health
from worker.relay.lane_run import LaneBatch, LaneRun
from worker.relay.late_answers import LateAnswers
from worker.relay.leases import Leases, clock
from worker.relay.tally import Tally

#: Who waits for runs looks this often, in seconds, whether a signal has come.
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Claimed:
    """Lanes that were claimed, and their first batch. `at` is what the clock of leases said before the claim."""

    run: LaneRun
    batch: LaneBatch
    at: float


@dataclass(frozen=True, kw_only=True)
class Relay:
    """All that draining needs. There is one per process; it is safe for threads."""

    db: sessionmaker[Session]
    routes: Mapping[str, Route]
    destinations: Mapping[str, Destination]
    leases: Leases
    late_answers: LateAnswers
    #: By the name of the destination.
    health: Mapping[str, Health]
    stopping: threading.Event = field(default_factory=threading.Event)
    #: Returns the key that claims carry, by which others see that this process lives; None if it has none now.
    liveness_key: Callable[[], int | None] = lambda: None
    commit_horizon: CommitHorizon = field(default_factory=CommitHorizon)

    def run(
        self,
        *,
        names: Iterable[str] | None = None,
        limit: float = float("inf"),
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> Tally:
        """Deliver due rows of these destinations, or of all, until there are none or `limit` rows were tried.

        It waits for the calls that have begun. `progress` is called with what became of the rows of each lane.
        """
        names, total = self.destinations if names is None else names, Tally()
        while (drained := self._drain_next(names, limit - total.tried)) is not None:
            progress(drained)
            total += drained
        return total

    def _drain_next(self, names: Iterable[str], limit: float) -> Tally | None:
        """Drain the next lane, or wait for the next late answer. Return None if there is neither."""
        if limit > 0 and (claimed := self.claim(names, limit)):
            return self.drain(claimed, limit=limit)
        return self.late_answers.next(names, self.stopping)

    def run_side_by_side(
        self, *, limit: float = float("inf"), progress: Callable[[Tally], None] = lambda _: None
    ) -> Tally:
        """Deliver due rows of all destinations, each in a thread of its own, until there are none.

        At most `limit` rows of each destination are tried. Otherwise as `run`.
        """
        totals = dict.fromkeys(self.destinations, Tally())

        def continued(name: str) -> Tally:
            return self.run(names=[name], limit=limit - totals[name].tried, progress=progress)

        with ThreadPoolExecutor(len(totals)) as threads:
            has_processed = True
            # The answers to a step record events for other destinations.
            while has_processed and not self.stopping.is_set():
                runs = _results({name: threads.submit(continued, name) for name in totals})
                has_processed = any(run.processed for run in runs.values())
                totals = {name: total + runs[name] for name, total in totals.items()}
        return sum(totals.values(), Tally())

    def close(self, grace_seconds: float) -> None:
        """Close everything. Calls that have begun get this time to end; then their lanes and rows are released."""
        self.late_answers.close(grace_seconds)
        self.leases.close()
        for destination in self.destinations.values():
            destination.close()

    def claim(self, names: Iterable[str], limit: float = float("inf")) -> Claimed | None:
        """Claim a lane of these destinations that has due rows. Return None if none is free, or the process stops."""
        left = [name for name in names if self._has_room(name)]
        while left and not self.stopping.is_set():
            try:
                return self._claim(left, limit)
            except ProbeTaken as taken:
                left.remove(taken.destination)
        return None

    def _has_room(self, name: str) -> bool:
        return self.health[name].pace.has_room(self.late_answers.unsettled(name))

    def drain(self, claimed: Claimed, *, limit: float = float("inf")) -> Tally:
        """Drain a lane that was claimed, for about a second."""
        with self.leases.renewing(*claimed.batch.lanes, claimed_at=claimed.at):
            return claimed.run.drain(claimed.batch, limit)

    def _claim(self, names: Sequence[str], limit: float) -> Claimed | None:
        """Claim a lane and fetch its first batch, in one transaction. Raises ProbeTaken."""
        at = clock()
        with self.db.begin() as session:
            lane = outbox.claim(session, names, _holder(), self.commit_horizon, liveness_key=self.liveness_key())
            if lane is None:
                return None
            self.health[lane.destination].begin_recovery(lane.recovered_at)
            run = self._run_over(lane.destination)
            return Claimed(run, run.first_batch(session, lane, limit), at)

    def _run_over(self, destination: str) -> LaneRun:
        return LaneRun(
            db=self.db,
            route=self.routes[destination],
            destination=self.destinations[destination],
            health=self.health[destination],
            leases=self.leases,
            late_answers=self.late_answers,
            stopping=self.stopping,
        )


def _results(runs: Mapping[str, Future[Tally]]) -> Mapping[str, Tally]:
    """Wait for runs, and return their tallies. The main thread handles a signal at the next look at the latest.

    Without looking, it would not handle one that comes just before it begins to wait: Python runs handlers between
    two steps of the main thread only.
    """
    while wait(runs.values(), LOOK_SECONDS).not_done:
        pass
    return {name: run.result() for name, run in runs.items()}


def _holder() -> str:
    """Return a name that no other claim has. It says where the worker runs, and ends in random digits."""
    return f"{socket.gethostname()[:30]}:{os.getpid()}:{token_hex(8)}"
