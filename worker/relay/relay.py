"""Draining the outbox: lane after lane, until nothing is due."""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from secrets import token_hex
from uuid import UUID

import structlog
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import HELD, Delivered, Failed, Horizon, Lane, Outcome, Row, Settlement
from domain.outbox.delivery.outcomes import Delivery
from domain.outbox.routes import Route
from domain.runtime.database import trouble
from worker.destinations import Destination, Step
from worker.relay.concurrency_limits import Shares
from worker.relay.leases import Leases
from worker.telemetry import metrics, tracing

#: A lane is given back after this long, so that few workers serve many lanes fairly.
SLICE_SECONDS = 1.0

log = structlog.get_logger()


@dataclass(slots=True)
class Tally:
    """What a run did, in rows. `fenced` were delivered under a lease that was lost: they go out again."""

    delivered: int = 0
    waiting: int = 0
    dead: int = 0
    fenced: int = 0


@dataclass(frozen=True, kw_only=True)
class Drain:
    """All that draining needs. One a process; safe for its threads."""

    db: sessionmaker[Session]
    routes: Mapping[str, Route]
    destinations: Mapping[str, Destination]
    leases: Leases
    shares: Shares
    stopping: threading.Event = field(default_factory=threading.Event)
    horizon: Horizon = field(default_factory=Horizon)

    def run(
        self,
        *,
        limit: float = float("inf"),
        until: float = float("inf"),
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> Tally:
        """Deliver what is due until nothing is, `limit` rows were tried, or the monotonic clock says `until`."""
        tally = Tally()
        while limit > 0 and time.monotonic() < until and not self.stopping.is_set():
            hold = Hold(self, tally, limit)
            if not hold.begin():
                break
            with self.shares.one(hold.destination) as has_room:
                if has_room:
                    hold.deliver_all()
                else:
                    hold.give_back()
            limit = hold.left
            progress(tally)
        return tally


class Hold:
    """One hold of one lane, from its claim until it is dry, its time is over, or it is lost."""

    def __init__(self, drain: Drain, tally: Tally, left: float) -> None:
        self.left = left
        self._drain = drain
        self._tally = tally
        self._ends = float("inf")
        self._lane: Lane
        self._rows: Sequence[Row] = ()
        self._limit = 0

    def begin(self) -> bool:
        """Claim a lane and fetch its first batch. Return False if there is none to claim."""
        with self._drain.db.begin() as session:
            lane = outbox.claim(session, self._drain.shares.open(), _holder(), self._drain.horizon)
            if lane is None:
                return False
            self._lane = lane
            if lane.rows_to_wake and not lane.probing:
                self._wake(session)
            self._fetch(session, after=self._lane.settled_to)
        return True

    @property
    def destination(self) -> str:
        return self._lane.destination

    def give_back(self) -> None:
        """Release the lane with nothing sent."""
        self._rows = ()
        with self._drain.db.begin() as session:
            outbox.release(session, self._lane)

    def deliver_all(self) -> None:
        # Not from the claim on: where that takes long, the first batch would never get its turn.
        self._ends = time.monotonic() + SLICE_SECONDS
        with self._drain.leases.holding(self._lane):
            while self._rows:
                self._settle(self._deliver())

    def _wake(self, session: Session) -> None:
        outbox.wake(session, self._lane)
        self._lane = replace(self._lane, rows_to_wake=False, settled_to=0)

    def _fetch(self, session: Session, after: int) -> None:
        """Fetch the next batch, or release the lane if there is none or no time for it."""
        self._rows = self._read(session, after)
        if not self._rows and self._lane.rows_to_wake:
            # A probe tries those first that have not met the outage: one that has may be what
            # makes the destination ill, and probing with it for ever would starve its neighbours.
            self._wake(session)
            after = self._lane.settled_to
            self._rows = self._read(session, after)
        if not self._rows:
            outbox.release(session, self._lane, settled_to=after)

    def _read(self, session: Session, after: int) -> Sequence[Row]:
        route = self._drain.routes[self._lane.destination]
        limit = self._limit = 1 if self._lane.probing else int(min(route.batch_size, self.left))
        over = self._drain.stopping.is_set() or time.monotonic() >= self._ends
        return () if over or limit <= 0 else outbox.fetch(session, self._lane, after=after, limit=limit)

    def _deliver(self) -> Sequence[Delivery]:
        """Send what may be sent, outside any transaction. Rows behind a waiting one are held."""
        sent = [row for row in self._rows if row.waits_until is None]
        outcomes = iter(self._send(sent) if sent else ())
        self.left -= len(self._rows)
        return [(row, HELD if row.waits_until else next(outcomes)) for row in self._rows]

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        with tracing.delivering(self._lane.destination, rows):
            return self._drain.destinations[self._lane.destination].deliver(rows)

    def _settle(self, deliveries: Sequence[Delivery], *, goes_on: bool = True) -> bool:
        """Settle a batch, or of it what can be. Return whether all its effects held."""
        try:
            self._commit(deliveries, goes_on)
        # The one place where a poisonous effect must not stop its neighbours: alone, it
        # is settled as failed; in company, each is settled alone.
        except Exception as error:
            if trouble(error):
                raise
            log.exception("outbox.effect_broke", destination=self._lane.destination, rows=len(deliveries))
            if len(deliveries) > 1:
                self._settle_each(deliveries)
            else:
                self._fail(deliveries[0][0], error, goes_on)
            return False
        return True

    def _fail(self, row: Row, error: Exception, goes_on: bool) -> None:
        """Settle a row whose effect broke as failed: without its compensation, should that break as well."""
        failed = [(row, Failed(f"{type(error).__name__}: {error}"))]
        try:
            self._commit(failed, goes_on)
        except Exception as again:
            if trouble(again):
                raise
            log.exception("outbox.uncompensated", destination=self._lane.destination, row=row.id)
            self._commit(failed, goes_on, applies=False)

    def _settle_each(self, deliveries: Sequence[Delivery]) -> None:
        """Settle row by row and give the lane back. What follows a broken effect goes out again, after it."""
        broken: set[UUID] = set()
        for row, outcome in deliveries:
            if row.aggregate_id not in broken and not self._settle([(row, outcome)], goes_on=False):
                broken.add(row.aggregate_id)
        self.give_back()

    def _commit(self, deliveries: Sequence[Delivery], goes_on: bool, *, applies: bool = True) -> None:
        """Settle a batch and, in the same transaction, fetch the next or release the lane."""
        destination = self._drain.destinations[self._lane.destination]
        retries = self._drain.routes[self._lane.destination].retries
        is_last = goes_on and self._is_dry(deliveries)
        with self._drain.db.begin() as session:
            settlement = outbox.settle(session, self._lane, deliveries, retries=retries, is_last=is_last)
            if settlement and applies and isinstance(destination, Step):
                destination.apply(session, settlement)
            if settlement and goes_on and not is_last:
                self._go_on(session, settlement)
        if is_last:
            self._rows = ()
        self._count(deliveries, settlement)

    def _is_dry(self, deliveries: Sequence[Delivery]) -> bool:
        """Tell whether a batch was all there was for this hold, and left whole: then it need not look again."""
        left = all(isinstance(outcome, Delivered) for _, outcome in deliveries)
        return left and not self._lane.probing and len(deliveries) < self._limit

    def _go_on(self, session: Session, settlement: Settlement) -> None:
        if settlement.is_down:
            self._rows = ()
            # The breaker is open now, so there is no probe to hand on.
            outbox.release(session, replace(self._lane, probing=False), settled_to=settlement.read_on_after)
            return
        # After a row that took the blame the next one goes alone: it shows whether that was right.
        # It has no permit for that: the breaker may meanwhile be open for what another lane was told.
        probing = settlement.is_in_doubt or (self._lane.probing and not settlement.is_up)
        self._lane = replace(self._lane, probing=probing, has_permit=self._lane.has_permit and not settlement.is_up)
        self._fetch(session, after=settlement.read_on_after)

    def _count(self, deliveries: Sequence[Delivery], settlement: Settlement | None) -> None:
        lane = {"destination": self._lane.destination, "lane": self._lane.number}
        metrics.count(self._lane.destination, deliveries, settlement)
        if settlement is None:
            self._rows = ()
            self._tally.fenced += len(deliveries)
            log.warning("outbox.fenced", **lane, rows=len(deliveries))
            return
        self._tally.delivered += len(settlement.processed)
        self._tally.waiting += settlement.waiting
        self._tally.dead += len(settlement.dead)
        if settlement.is_down:
            log.warning("destination.down", **lane, waiting=settlement.waiting)
        for change in settlement.dead:
            log.error("outbox.dead", **lane, row=change.row.id, type=change.row.type)


def _holder() -> str:
    """Return a name for one claim that no other claim has: it says where to look, and then some dice."""
    return f"{socket.gethostname()[:30]}:{os.getpid()}:{token_hex(8)}"
