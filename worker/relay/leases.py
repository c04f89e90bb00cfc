"""Leases: one thread renews the leases of all lanes of this process, each second."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import LEASE, LeasedLane
from domain.runtime.rounds import isolate_round
from worker.telemetry import metrics

#: Four renewals fit into one lease, so three may fail.
RENEW_SECONDS = 1.0

#: No healthy run takes as long: its last batch begins within a second and takes a few time-outs of a minute at most.
#: A run that takes longer hangs in a way that nobody foresaw, and another worker may claim the lane.
LONGEST_RUN_SECONDS = 900.0

HANGS = (
    f"A delivery has not ended for {LONGEST_RUN_SECONDS:g} s. Other workers continue with its lane. Restart this"
    " worker: until then it has one thread less."
)

UNEXPECTED = (
    "The leases of this process were not renewed this time; it is tried again in a second. Lanes that can't be renewed"
    " for 4 s go to other workers, and what was sent and not settled is sent again. If this goes on, report the error."
)

log = structlog.get_logger()


def clock() -> float:
    """Return the seconds since the machine was started, those included in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Lease:
    """When the run over a lane began, and when its lease was last known to begin anew, by `clock`."""

    since: float
    renewed_at: float


class Leases:
    """The lanes that this process has leased."""

    def __init__(self, db: sessionmaker[Session]) -> None:
        self._db = db
        self._leased: dict[LeasedLane, Lease] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @contextmanager
    def renewing(self, *lanes: LeasedLane, claimed_at: float) -> Iterator[None]:
        """Renew the leases of lanes of a destination while the block runs, for LONGEST_RUN_SECONDS at the most.

        `claimed_at` is what `clock` said before the claim.
        """
        with self._lock:
            self._leased |= {lane: Lease(since=clock(), renewed_at=claimed_at) for lane in lanes}
        leased = metrics.LEASED.labels(lanes[0].destination)
        leased.inc(len(lanes))
        try:
            yield
        finally:
            leased.dec(len(lanes))
            with self._lock:
                for lane in lanes:
                    self._leased.pop(lane, None)

    def holds(self, lane: LeasedLane) -> bool:
        """Return whether nobody else can have claimed a lane. A process that was frozen does not know."""
        with self._lock:
            lease = self._leased.get(lane)
        return lease is not None and clock() < lease.renewed_at + LEASE.total_seconds()

    def close(self) -> None:
        """Stop renewing, and release the lanes of calls that have not ended."""
        self._stopped.set()
        self._thread.join()
        with self._lock:
            lanes = sorted(self._leased, key=lambda lane: (lane.destination, lane.number))
        try:
            with self._db.begin() as session:
                for lane in lanes:
                    # Another worker may have taken over a probe that such a call began.
                    outbox.release(session, replace(lane, probing=False))
        except SQLAlchemyError as error:
            # The process ends all the same, and the lanes are free when their leases end.
            log.warning("leases.not_released", lanes=len(lanes), error=type(error).__name__)

    def _run(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            isolate_round(self._renew_all, thread="leases", advice=UNEXPECTED)

    def _renew_all(self) -> None:
        self._give_up()
        with self._lock:
            leased = list(self._leased)
        if leased:
            self._renew(leased)

    def _give_up(self) -> None:
        """Stop renewing lanes that were leased for too long.

        Another worker may claim them: from then on, the fence rejects what the threads here still settle.
        """
        with self._lock:
            latest = clock() - LONGEST_RUN_SECONDS
            too_long = [lane for lane, lease in self._leased.items() if lease.since < latest]
            for lane in too_long:
                del self._leased[lane]
        for lane in too_long:
            log.error("leases.given_up", destination=lane.destination, lane=lane.number, advice=HANGS)

    def _renew(self, leased: list[LeasedLane]) -> None:
        began = clock()
        try:
            with self._db.begin() as session:
                renewed = outbox.renew(session, leased)
            with self._lock:
                for lane in renewed & self._leased.keys():
                    self._leased[lane].renewed_at = began
        except SQLAlchemyError as error:
            # A lane that can't be renewed is lost when its lease ends; the fence detects that.
            log.warning("leases.not_renewed", lanes=len(leased), error=type(error).__name__)
