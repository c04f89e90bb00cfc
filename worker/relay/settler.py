"""The settler of a destination: it settles deliveries, together with their effects in our own database."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import (
    Call,
    Delivery,
    Failed,
    History,
    InFlight,
    LeasedLane,
    Outcome,
    RetryPolicy,
    Settlement,
    lane_of,
)
from worker.destinations import Destination, WithEffects
from worker.isolate import Broken, isolate_effects
from worker.relay.late_answers import LateAnswers
from worker.relay.tally import Tally, report, report_late

#: Writes the outcome of one row, in a transaction. Returns None if the row is not ours to settle any more.
Write = Callable[[Session, Outcome], Settlement | None]

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Settler:
    """Settles the rows of one destination. If it has effects in our own database, they commit with the rows."""

    db: sessionmaker[Session]
    destination: Destination
    retry_policy: RetryPolicy
    history: History
    late_answers: LateAnswers

    def settle(
        self, session: Session, lanes: Sequence[LeasedLane], deliveries: Sequence[Delivery], *, is_last: bool = False
    ) -> Settlement | None:
        """Settle a batch in the caller's transaction. Return None if its lanes are not ours any more."""
        settlement = outbox.settle(
            session, lanes, deliveries, retry_policy=self.retry_policy, history=self.history, is_last=is_last
        )
        self._apply(session, settlement)
        return settlement

    def after_commit(
        self, lanes: Sequence[LeasedLane], deliveries: Sequence[Delivery], settlement: Settlement | None
    ) -> Tally:
        """Report a batch that was settled, and have its calls settled that have not ended, as soon as they do."""
        for row, outcome in deliveries:
            if settlement and isinstance(outcome, InFlight) and (row, outcome) not in settlement.fenced:
                since = settlement.at
                call = Call(destination=lanes[0].destination, row=row, since=since, until=since + outcome.within)
                self.late_answers.expect(call, outcome, partial(self._settle_late, call))
        return report(lanes, deliveries, settlement)

    def settle_one_by_one(self, lanes: Sequence[LeasedLane], deliveries: Sequence[Delivery]) -> Tally:
        """Settle each row in a transaction of its own, so that a poisonous effect fails alone.

        Later rows of an aggregate whose effect broke stay ready: they are sent again, after the broken one.
        """
        total = Tally()
        broken: set[UUID] = set()
        lane_by_number = {lane.number: lane for lane in lanes}
        for row, outcome in deliveries:
            if row.aggregate_id in broken:
                continue
            lane = lane_by_number[lane_of(row.aggregate_id)]
            written, settlement = self._isolated(partial(self._write_alone, lane, row), outcome)
            if written != outcome:
                broken.add(row.aggregate_id)
            total += self.after_commit([lane], [(row, written)], settlement)
        return total

    def _settle_late(self, call: Call, outcome: Outcome) -> Tally:
        """Settle a call that has outlasted its batch."""
        written, settlement = self._isolated(partial(self._write_late, call), outcome)
        return report_late(call, written, settlement)

    def _write_alone(self, lane: LeasedLane, row: outbox.Row, session: Session, outcome: Outcome) -> Settlement | None:
        delivery = [(row, outcome)]
        return outbox.settle(session, [lane], delivery, retry_policy=self.retry_policy, history=self.history)

    def _write_late(self, call: Call, session: Session, outcome: Outcome) -> Settlement | None:
        return outbox.settle_late(session, call, outcome, retry_policy=self.retry_policy, history=self.history)

    def _isolated(self, write: Write, outcome: Outcome) -> tuple[Outcome, Settlement | None]:
        """Commit the outcome of one row with its effect. Return what was written.

        A row whose effect breaks has failed. It is written without its compensation, should that break as well.
        """
        committed = isolate_effects(partial(self._commit, write, outcome))
        if not isinstance(committed, Broken):
            return outcome, committed
        failed = Failed(committed.error)
        compensated = isolate_effects(partial(self._commit, write, failed))
        if not isinstance(compensated, Broken):
            return failed, compensated
        log.error("outbox.uncompensated", error=compensated.error)
        return failed, self._commit(write, failed, has_effects=False)

    def _commit(self, write: Write, outcome: Outcome, *, has_effects: bool = True) -> Settlement | None:
        with self.db.begin() as session:
            settlement = write(session, outcome)
            if has_effects:
                self._apply(session, settlement)
        return settlement

    def _apply(self, session: Session, settlement: Settlement | None) -> None:
        if settlement and isinstance(self.destination, WithEffects):
            self.destination.apply(session, settlement)
