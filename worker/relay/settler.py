"""The settler of a destination: it settles deliveries, together with their effects in our own database."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import Delivery, Failed, History, LeasedLane, RetryPolicy, Settlement
from worker.destinations import Destination, WithEffects
from worker.isolate import Broken, isolate_effects
from worker.relay.tally import Tally, report

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Settler:
    """Settles the rows of one destination. If it has effects in our own database, they commit with the rows."""

    db: sessionmaker[Session]
    destination: Destination
    retry_policy: RetryPolicy
    history: History

    def settle(
        self, session: Session, lane: LeasedLane, deliveries: Sequence[Delivery], *, is_last: bool = False
    ) -> Settlement | None:
        """Settle a batch in the caller's transaction. Return None if the lane is not ours any more."""
        settlement = outbox.settle(
            session, lane, deliveries, retry_policy=self.retry_policy, history=self.history, is_last=is_last
        )
        if settlement and isinstance(self.destination, WithEffects):
            self.destination.apply(session, settlement)
        return settlement

    def settle_one_by_one(self, lane: LeasedLane, deliveries: Sequence[Delivery]) -> Tally:
        """Settle each row in a transaction of its own, so that a poisonous effect fails alone.

        Later rows of an aggregate whose effect broke stay ready: they are sent again, after the broken one.
        """
        total = Tally()
        broken: set[UUID] = set()
        for row, outcome in deliveries:
            if row.aggregate_id in broken:
                continue
            settled = isolate_effects(partial(self._settle_alone, lane, (row, outcome)))
            if isinstance(settled, Broken):
                broken.add(row.aggregate_id)
                settled = self._settle_as_failed(lane, (row, Failed(settled.error)))
            total += settled
        return total

    def _settle_alone(self, lane: LeasedLane, delivery: Delivery) -> Tally:
        with self.db.begin() as session:
            settlement = self.settle(session, lane, [delivery])
        return report(lane, [delivery], settlement)

    def _settle_as_failed(self, lane: LeasedLane, failed: Delivery) -> Tally:
        """Settle a row whose effect broke as failed: without its compensation, should that break as well."""
        settled = isolate_effects(partial(self._settle_alone, lane, failed))
        if not isinstance(settled, Broken):
            return settled
        log.error("outbox.uncompensated", destination=lane.destination, row=failed[0].id)
        with self.db.begin() as session:
            settlement = outbox.settle(session, lane, [failed], retry_policy=self.retry_policy, history=self.history)
        return report(lane, [failed], settlement)
