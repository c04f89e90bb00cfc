"""One run over a leased lane: deliver a batch, settle it and fetch the next, until the lane is released or lost.

Lanes that have few rows each are leased together: one batch has the rows of all, and then they are released.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import LANES, NOT_SENT, Delivered, Delivery, LeasedLane, Outcome, Route, Row, Settlement
from worker.destinations import Destination
from worker.isolate import Broken, isolate_effects
from worker.ordering.rules import BATCH_SECONDS, by_aggregate
from worker.relay.health import Health
from worker.relay.late_answers import LateAnswers
from worker.relay.leases import Leases
from worker.relay.settler import Settler
from worker.relay.tally import Tally, facts_of
from worker.telemetry import tracing

log = structlog.get_logger()

#: A lane is released after this long, so that few workers serve many lanes fairly.
SLICE_SECONDS = 1.0

#: After trouble with PostgreSQL a batch is settled again after this time: a lease lasts for four times as long.
SETTLE_AGAIN_SECONDS = 1.0

#: A probe is one row. So many are read, of which that one is chosen.
PROBE_ROWS = 100

#: No slice has begun yet: the first batch is fetched however long its claim took.
NO_DEADLINE = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneBatch:
    """The rows of a leased lane that are delivered next. There are none when the lane was released or lost.

    With `is_full` there are as many as were asked for, so there may be more. With `more` lanes, which were leased
    together with it, these are the rows of all, in order of id. It `has_few` if no such lane had many.
    """

    lane: LeasedLane
    more: Sequence[LeasedLane] = ()
    rows: Sequence[Row] = ()
    is_full: bool = False
    has_few: bool = False

    @property
    def lanes(self) -> Sequence[LeasedLane]:
        return [self.lane, *self.more]


@dataclass(frozen=True, kw_only=True)
class LaneRun:
    """Drains a leased lane of one destination. It holds no state: what happens next depends on the batch alone."""

    db: sessionmaker[Session]
    route: Route
    destination: Destination
    health: Health
    leases: Leases
    late_answers: LateAnswers
    stopping: threading.Event

    def first_batch(self, session: Session, lane: LeasedLane, limit: float) -> LaneBatch:
        """Fetch the first batch, in the transaction of the claim."""
        if lane.has_due_rows and not lane.probing:
            lane = _with_due_rows_ready(session, lane)
        batch = self._fetch(session, lane, after=lane.low_watermark, limit=limit, deadline=NO_DEADLINE)
        few = self._batch_size(limit) // LANES
        if not 0 < len(batch.rows) <= few:
            return batch
        return replace(self._with_more(session, batch, few), has_few=True)

    def _with_more(self, session: Session, batch: LaneBatch, few: int) -> LaneBatch:
        """Lease the other lanes that have few rows as well. A worker would spend its time on claims otherwise."""
        if batch.lane.probing or not (more := outbox.claim_more(session, batch.lane, few=few)):
            return batch
        rows = [*batch.rows, *outbox.fetch_few(session, more, limit=few)]
        return replace(batch, more=more, rows=sorted(rows, key=attrgetter("id")))

    def drain(self, batch: LaneBatch, limit: float) -> Tally:
        """Deliver batch after batch, `limit` rows at the most, until one is empty."""
        deadline = time.monotonic() + SLICE_SECONDS
        total = Tally()
        while batch.rows:
            if not all(map(self.leases.holds, batch.lanes)):
                # This process was frozen, or could not renew its leases: another one may have sent these rows.
                log.warning("lane.not_held", **facts_of(batch.lanes))
                self.release(batch)
                break
            deliveries = self._deliver(batch)
            left = limit - total.tried - (1 if batch.lane.probing else len(deliveries))
            batch, settled = self._settle_and_fetch(batch, deliveries, left, deadline)
            total += settled
        return total

    def release(self, batch: LaneBatch) -> None:
        """Release the lanes of a batch in a transaction of its own."""
        with self.db.begin() as session:
            for lane in batch.lanes:
                outbox.release(session, lane)

    def _deliver(self, batch: LaneBatch) -> Sequence[Delivery]:
        """Send the rows, outside any transaction. A row behind a waiting one of its aggregate is not sent."""
        free = [row for row in batch.rows if row.waits_until is None]
        sent = _probe_of(free) if batch.lane.probing else free
        outcomes = dict(zip((row.id for row in sent), self._send(sent) if sent else (), strict=True))
        return [(row, outcomes.get(row.id, NOT_SENT)) for row in batch.rows]

    def _send(self, rows: Sequence[Row]) -> Sequence[Outcome]:
        with tracing.delivering(self.route.name, rows):
            return self.destination.deliver(rows)

    def _settle_and_fetch(
        self, batch: LaneBatch, deliveries: Sequence[Delivery], limit: float, deadline: float
    ) -> tuple[LaneBatch, Tally]:
        """Settle a batch and fetch the next one. If an effect breaks, settle the rows one by one instead."""
        committed = self._commit_with_retry(batch, deliveries, limit, deadline)
        if isinstance(committed, Broken):
            tally = self._settler.settle_one_by_one(batch.lanes, deliveries)
            self.release(batch)
            return LaneBatch(lane=batch.lane), tally
        following, settlement = committed
        return following, self._settler.after_commit(batch.lanes, deliveries, settlement)

    def _commit_with_retry(
        self, batch: LaneBatch, deliveries: Sequence[Delivery], limit: float, deadline: float
    ) -> tuple[LaneBatch, Settlement | None] | Broken:
        """Commit a batch. After trouble with PostgreSQL it tries once more, as all would be sent again otherwise."""
        try:
            return isolate_effects(partial(self._commit, batch, deliveries, limit, deadline))
        except SQLAlchemyError as error:
            log.warning("outbox.not_settled", **facts_of(batch.lanes), error=type(error).__name__)
            self.stopping.wait(SETTLE_AGAIN_SECONDS)
            return isolate_effects(partial(self._commit_again, batch, deliveries, limit, deadline))

    def _commit_again(
        self, batch: LaneBatch, deliveries: Sequence[Delivery], limit: float, deadline: float
    ) -> tuple[LaneBatch, Settlement | None]:
        """Commit a batch unless that was done: the connection may have broken after the commit."""
        with self.db.begin() as session:
            pending = outbox.still_pending(session, [row for row, _ in deliveries])
        if not pending:
            self.release(batch)
            return LaneBatch(lane=batch.lane), outbox.NOTHING_SETTLED
        left = [(row, outcome) for row, outcome in deliveries if row.id in pending]
        return self._commit(batch, left, limit, deadline)

    def _commit(
        self, batch: LaneBatch, deliveries: Sequence[Delivery], limit: float, deadline: float
    ) -> tuple[LaneBatch, Settlement | None]:
        """Settle a batch and, in the same transaction, fetch the next one or release its lanes."""
        following = LaneBatch(lane=batch.lane)
        is_last = bool(batch.more) or _is_exhausted_by(batch, deliveries)
        with self.db.begin() as session:
            settlement = self._settler.settle(session, batch.lanes, deliveries, is_last=is_last)
            if settlement and not is_last:
                following = self._following(session, batch.lane, settlement, limit, deadline)
        return following, settlement

    @property
    def _settler(self) -> Settler:
        return Settler(
            db=self.db,
            destination=self.destination,
            retry_policy=self.route.retry_policy,
            history=self.health.history,
            late_answers=self.late_answers,
        )

    def _following(
        self, session: Session, lane: LeasedLane, settlement: Settlement, limit: float, deadline: float
    ) -> LaneBatch:
        has_recovered = lane.probing and settlement.is_up
        if has_recovered:
            self.health.begin_recovery(settlement.at)
        if settlement.down or has_recovered:
            # There is no probe to hand on. A destination that has recovered is let up with the rows of all lanes: those
            # that have few are claimed together.
            outbox.release(session, replace(lane, probing=False), settled_up_to=settlement.read_on_after)
            return LaneBatch(lane=lane)
        return self._fetch(session, lane, after=settlement.read_on_after, limit=limit, deadline=deadline)

    def _fetch(self, session: Session, lane: LeasedLane, *, after: int, limit: float, deadline: float) -> LaneBatch:
        """Fetch the next batch, or release the lane if there is none or its time is over."""
        size = PROBE_ROWS if lane.probing else self._batch_size(limit)
        rows = self._read(session, lane, after, size, deadline)
        if not rows and lane.has_due_rows:
            # A probe first tries rows that have not met the outage (see `_probe_of`).
            lane = _with_due_rows_ready(session, lane)
            after = lane.low_watermark
            rows = self._read(session, lane, after, size, deadline)
        if not rows:
            outbox.release(session, lane, settled_up_to=after)
        return LaneBatch(lane=lane, rows=rows, is_full=len(rows) == size)

    def _batch_size(self, limit: float) -> int:
        return int(min(self.route.batch_size, limit, self.health.pace.most(BATCH_SECONDS)))

    def _read(self, session: Session, lane: LeasedLane, after: int, size: int, deadline: float) -> Sequence[Row]:
        if size <= 0 or self.stopping.is_set() or time.monotonic() >= deadline:
            return ()
        return outbox.fetch(session, lane, after=after, limit=size)


def _with_due_rows_ready(session: Session, lane: LeasedLane) -> LeasedLane:
    outbox.make_due_rows_ready(session, lane)
    return replace(lane, has_due_rows=False, low_watermark=0)


def _probe_of(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the row that a destination is probed with: the first that was never refused, if there is one.

    A row that was refused may be the cause of the outage, and to probe with it again and again would keep its
    neighbours waiting for ever. It overtakes no earlier row of its own aggregate.
    """
    heads = [queue[0] for queue in by_aggregate(rows).values()]
    return ([row for row in heads if row.unreachable_at is None] or heads)[:1]


def _is_exhausted_by(batch: LaneBatch, deliveries: Sequence[Delivery]) -> bool:
    """Return whether the batch was all there was for this run, and was delivered whole: there is nothing to fetch.

    Obsolete and Declined, which need no further attempt either, are not looked for: they are rare, and such a batch
    only costs one more fetch.
    """
    delivered = all(isinstance(outcome, Delivered) for _, outcome in deliveries)
    return delivered and not batch.lane.probing and not batch.is_full
