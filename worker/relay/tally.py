"""The tally of a run: what became of the rows that were tried, as logs, metrics and commands report it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from domain.outbox import Call, Delivery, LeasedLane, Outcome, Settlement
from worker.telemetry import metrics

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the rows that were tried. Those that were not sent and are still ready are in `tried` only.

    `processed` ones were delivered, or their step was answered or had nothing left to ask. `fenced` ones were sent
    under a lost lease and are sent again. `waiting` is by how many more rows wait now; it is negative if a late answer
    has made rows due that were counted before, perhaps by another process.
    """

    tried: int = 0
    processed: int = 0
    waiting: int = 0
    dead: int = 0
    fenced: int = 0

    @property
    def still_waiting(self) -> int:
        return max(0, self.waiting)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            tried=self.tried + other.tried,
            processed=self.processed + other.processed,
            waiting=self.waiting + other.waiting,
            dead=self.dead + other.dead,
            fenced=self.fenced + other.fenced,
        )


def facts_of(lanes: Sequence[LeasedLane]) -> Mapping[str, Any]:
    """Return what logs say of the lanes of a batch."""
    numbers = {"lanes": [lane.number for lane in lanes]} if len(lanes) > 1 else {"lane": lanes[0].number}
    return {"destination": lanes[0].destination} | numbers


def report(lanes: Sequence[LeasedLane], deliveries: Sequence[Delivery], settlement: Settlement | None) -> Tally:
    """Report what became of a batch in metrics and logs, and return it. Call it after the commit."""
    if settlement and settlement.fenced:
        lost = _report(facts_of(lanes), settlement.fenced, None)
        return lost + _report(facts_of(lanes), [one for one in deliveries if one not in settlement.fenced], settlement)
    return _report(facts_of(lanes), deliveries, settlement)


def report_late(call: Call, outcome: Outcome, settlement: Settlement | None) -> Tally:
    """Report what became of a call that outlasted its batch, which has counted its row as tried."""
    tally = _report({"destination": call.destination}, [(call.row, outcome)], settlement)
    return replace(tally, tried=0)


def _report(facts: Mapping[str, Any], deliveries: Sequence[Delivery], settlement: Settlement | None) -> Tally:
    metrics.count(facts["destination"], deliveries, settlement)
    if settlement is None:
        log.warning("outbox.fenced", **facts, rows=len(deliveries))
        return Tally(tried=len(deliveries), fenced=len(deliveries))
    if settlement.down:
        log.warning("destination.down", **facts, waiting=settlement.waiting, reason=settlement.down)
    for update in settlement.dead:
        log.error("outbox.dead", **facts, row=update.row.id, type=update.row.type)
    return Tally(
        tried=len(deliveries),
        processed=len(settlement.processed),
        waiting=settlement.waiting,
        dead=len(settlement.dead),
    )
