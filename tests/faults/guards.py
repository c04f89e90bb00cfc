"""The guards of the outbox, and what is left of each when it is taken away. For `tests.faults.mutants`."""

from dataclasses import dataclass

#: The part of the suite that is to notice, by guard.
SUITES = {
    "fence": ("test_fence", "test_settle", "test_lanes", "test_leases", "test_outbox_model", "test_drain_model"),
    "order": (
        "test_fetch",
        "test_lanes",
        "test_outcomes",
        "test_calls",
        "test_settle",
        "test_drain",
        "test_floor",
        "test_horizon",
        "test_outbox_model",
        "test_drain_model",
    ),
    "skip-locked": ("test_lanes", "test_leases"),
    "event-id": ("test_record", "test_log", "test_webhook", "test_confirmation_service"),
}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One guard less: `text`, which is there exactly once, becomes `without`."""

    guard: str
    says: str
    path: str
    text: str
    without: str


SETTLE, LANES, FETCH = (
    "domain/outbox/delivery/settle.py",
    "domain/outbox/delivery/lanes.py",
    "domain/outbox/delivery/fetch.py",
)
FLOOR = "domain/outbox/delivery/low_watermark.py"

#: How a batch asks whether its lane is still ours.
ASKED = "release(session, lane, settled_to=settled_to) if is_last else fence(session, lane)"

#: What a lane that is ours would say.
NOW = "__import__('domain.runtime.database').database.now(session)"

#: An id that no earlier delivery had.
ANOTHER_ID = '__import__("uuid").uuid4()'

MUTANTS = (
    Mutant(
        guard="fence",
        says="settling a batch does not ask whether the lane is still ours",
        path=SETTLE,
        text=ASKED,
        without=f"({ASKED}) or {NOW}",
    ),
    Mutant(
        guard="fence",
        says="settling the last batch gives back without asking",
        path=SETTLE,
        text=ASKED,
        without=ASKED.replace(" if is_last", f" or {NOW} if is_last"),
    ),
    Mutant(
        guard="fence",
        says="fence and release go by the holder alone",
        path=LANES,
        text='lanes.c.epoch == bindparam("claimed")',
        without='bindparam("claimed", type_=BigInteger).is_not(None)',
    ),
    Mutant(
        guard="fence",
        says="fence and release go by the epoch alone",
        path=LANES,
        text='lanes.c.holder == bindparam("by")',
        without='bindparam("by", type_=String).is_not(None)',
    ),
    Mutant(
        guard="fence",
        says="fence and release go by neither",
        path=LANES,
        text='.where(lanes.c.epoch == bindparam("claimed"), lanes.c.holder == bindparam("by"))',
        without='.where(bindparam("claimed", type_=BigInteger) > 0, bindparam("by", type_=String) > "")',
    ),
    Mutant(
        guard="fence",
        says="a claim does not raise the epoch",
        path=LANES,
        text="epoch=lanes.c.epoch + 1",
        without="epoch=lanes.c.epoch",
    ),
    Mutant(
        guard="fence",
        says="a lost lease can be renewed",
        path=LANES,
        text="    .where(lanes.c.epoch == _held.c.epoch, lanes.c.holder == _held.c.holder)\n",
        without="",
    ),
    Mutant(
        guard="fence",
        says="a lane can be claimed while it is leased",
        path=LANES,
        text="    .where(or_(lanes.c.leased_until.is_(None), lanes.c.leased_until <= func.clock_timestamp()))\n",
        without="",
    ),
    Mutant(
        guard="order",
        says="nothing is known to wait for an earlier row",
        path=FETCH,
        text='_waits_until.label("waits_until")',
        without='cast(None, outbox.c.available_at.type).label("waits_until")',
    ),
    Mutant(
        guard="order",
        says="a row waits for later ones, too",
        path=FETCH,
        text="    .where(_earlier.c.id < outbox.c.id)\n",
        without="",
    ),
    Mutant(
        guard="order",
        says="a row waits for other aggregates, too",
        path=FETCH,
        text=", _earlier.c.aggregate_id == outbox.c.aggregate_id",
        without="",
    ),
    Mutant(
        guard="order",
        says="a hold reads beyond its claim",
        path=FETCH,
        text=', outbox.c.id <= bindparam("newest", type_=BigInteger)',
        without=', bindparam("newest", type_=BigInteger).is_not(None)',
    ),
    Mutant(
        guard="order",
        says="a lane is read in any order",
        path=FETCH,
        text='    .order_by(outbox.c.id)\n    .limit(bindparam("limit"))',
        without='    .order_by(outbox.c.id.desc())\n    .limit(bindparam("limit"))',
    ),
    Mutant(
        guard="order",
        says="a floor rises above what may commit late",
        path=FLOOR,
        text="return self._ended.newest if self._ended and is_over else 0",
        without="return now.newest",
    ),
    Mutant(
        guard="order",
        says="a floor rises by a view that is younger than ours",
        path=FLOOR,
        text="is_over = self._ended is not None and self._ended.begun_below <= now.ended_below",
        without="is_over = True",
    ),
    Mutant(
        guard="order",
        says="a floor rises above what a batch has left ready",
        path=SETTLE,
        text="settled_to = deliveries[-1][0].id if len(processed) == len(deliveries) else 0",
        without="settled_to = deliveries[-1][0].id",
    ),
    Mutant(
        guard="order",
        says="what is woken below a floor stays there",
        path=FETCH,
        text="        floor.take_away(session, lane)",
        without="        pass",
    ),
    Mutant(
        guard="order",
        says="what follows a row that waits does not wait",
        path="domain/outbox/delivery/outcomes.py",
        text="waiting[row.aggregate_id] = change",
        without="pass",
    ),
    Mutant(
        guard="order",
        says="a hold reads on past a row that was held",
        path=SETTLE,
        text="    if len(processed) + len(changes) == len(deliveries):\n        return",
        without="    if deliveries:\n        return",
    ),
    Mutant(
        guard="order",
        says="what follows a row that did not leave is sent",
        path="worker/relay/ordered_calls.py",
        text="goes_on = goes_on and lets_go_on(outcome)",
        without="goes_on = True",
    ),
    Mutant(
        guard="order",
        says="what was fetched behind a waiting row is sent",
        path="worker/relay/relay.py",
        text="sent = [row for row in self._rows if row.waits_until is None]",
        without="sent = self._rows",
    ),
    Mutant(
        guard="skip-locked",
        says="a claim waits for one in flight",
        path=LANES,
        text='with_for_update(of=lanes, skip_locked=True)\n    .cte("free")',
        without='with_for_update(of=lanes)\n    .cte("free")',
    ),
    Mutant(
        guard="skip-locked",
        says="a claim locks nothing",
        path=LANES,
        text='    .with_for_update(of=lanes, skip_locked=True)\n    .cte("free")',
        without='    .cte("free")',
    ),
    Mutant(
        guard="skip-locked",
        says="a renewal waits for a lane that is being settled",
        path=LANES,
        text='with_for_update(of=lanes, skip_locked=True)\n    .cte("mine")',
        without='with_for_update(of=lanes)\n    .cte("mine")',
    ),
    Mutant(
        guard="event-id",
        says="each destination gets an id of its own",
        path="domain/outbox/record.py",
        text="return [(event_id, name,",
        without="return [(new_id(), name,",
    ),
    Mutant(
        guard="event-id",
        says="webhook-id is new at each delivery",
        path="worker/sinks/webhook.py",
        text="row.fetched_at, str(row.event_id)",
        without=f"row.fetched_at, str({ANOTHER_ID})",
    ),
    Mutant(
        guard="event-id",
        says="the Idempotency-Key is new at each call",
        path="worker/steps/confirmation.py",
        text='"Idempotency-Key": str(row.event_id)',
        without=f'"Idempotency-Key": str({ANOTHER_ID})',
    ),
    Mutant(
        guard="event-id",
        says="the envelope's event_id is new at each delivery",
        path="worker/formats/envelope.py",
        text='"event_id":"{row.event_id}"',
        without=f'"event_id":"{{{ANOTHER_ID}}}"',
    ),
)
