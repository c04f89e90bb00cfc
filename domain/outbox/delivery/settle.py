"""Settling: writing the outcomes of a batch, if the lane is still leased to this process."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Float,
    SmallInteger,
    Text,
    any_,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain.outbox.delivery import breaker, outcomes
from domain.outbox.delivery.lanes import LeasedLane, fence, release
from domain.outbox.delivery.outcomes import (
    Declined,
    Delivered,
    Delivery,
    Obsolete,
    Policy,
    Rejected,
    Retries,
    RowUpdate,
    Unreachable,
    excerpt,
)
from domain.outbox.table import outbox, pending
from domain.runtime.database import arrays, lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What was written: the rows that were processed, the rows that are dead letters now, and how many wait.

    `processed` rows were delivered, or their step was answered or had nothing left to ask. Operators see all of them
    as delivered.

    `is_up` and `is_down` say what the batch has shown about the destination; both may be false. With `is_in_doubt`,
    a row that found it down was taken for the cause, and the next row may show otherwise. `read_on_after` is the id
    after which this run may fetch: not past a row that was not sent and is still ready, or a later row of its
    aggregate would overtake it. `at` is the database's time.
    """

    at: datetime
    processed: Sequence[Delivery]
    dead: Sequence[RowUpdate]
    waiting: int
    read_on_after: int
    is_up: bool
    is_down: bool
    is_in_doubt: bool


def settle(
    session: Session, lane: LeasedLane, deliveries: Sequence[Delivery], *, retries: Retries, is_last: bool = False
) -> Settlement | None:
    """Write the outcomes of a batch. Return None, with nothing written, if the lane is not ours any more.

    With `is_last` the lane is released in the same statement that fences it.
    """
    processed = [delivery for delivery in deliveries if isinstance(delivery[1], Delivered | Declined | Obsolete)]
    settled_up_to = deliveries[-1][0].id if len(processed) == len(deliveries) else 0
    at = release(session, lane, settled_up_to=settled_up_to) if is_last else fence(session, lane)
    if at is None:
        return None
    if processed:
        session.execute(_PROCESSED, {"ids": [row.id for row, _ in processed]})
    is_up = any(isinstance(outcome, Delivered | Declined | Rejected) for _, outcome in deliveries)
    if lane.probing and is_up:
        breaker.close(session, lane.destination)
    updates = [] if len(processed) == len(deliveries) else _update(session, lane, deliveries, retries)
    return Settlement(
        at=at,
        processed=processed,
        dead=[update for update in updates if update.dead],
        waiting=sum(not update.dead for update in updates),
        read_on_after=_read_on_after(deliveries, processed, updates),
        is_up=is_up,
        is_down=any(update.unreachable and not update.own_fault for update in updates),
        is_in_doubt=any(update.own_fault for update in updates),
    )


def _read_on_after(deliveries: Sequence[Delivery], processed: Sequence[Delivery], updates: Sequence[RowUpdate]) -> int:
    if len(processed) + len(updates) == len(deliveries):
        return deliveries[-1][0].id
    done = {row.id for row, _ in processed} | {update.row.id for update in updates}
    return next(row.id for row, _ in deliveries if row.id not in done) - 1


_PROCESSED = (
    update(outbox)
    .where(outbox.c.id == any_(cast(bindparam("ids"), ARRAY(BigInteger))), pending)
    .values(processed_at=func.clock_timestamp())
)


def _update(
    session: Session, lane: LeasedLane, deliveries: Sequence[Delivery], retries: Retries
) -> Sequence[RowUpdate]:
    """Update the rows that were not delivered, and open the breaker if the destination is down."""
    state = breaker.lock(session, lane.destination)
    policy = Policy(retries=retries, open_for=timedelta(0), recovered_at=state.recovered_at, roll=random.random)
    down = [
        outcome
        for row, outcome in deliveries
        if isinstance(outcome, Unreachable) and not outcomes.is_its_own_fault(row, outcome, state.recovered_at)
    ]
    if any(outcome.gone for outcome in down):
        breaker.pause(session, lane.destination, reason=next(outcome.error for outcome in down if outcome.gone))
    elif down:
        open_for = breaker.trip(session, lane.destination, state, down, probing=lane.probing)
        policy = replace(policy, open_for=open_for)
    updates = outcomes.row_updates(deliveries, policy)
    if updates:
        session.execute(_UPDATE, _columns(updates))
    return updates


def _columns(updates: Sequence[RowUpdate]) -> Mapping[str, Sequence[Any]]:
    return lists(
        _updates,
        id=[update.row.id for update in updates],
        attempts=[update.attempts for update in updates],
        wait=[None if update.wait is None else update.wait.total_seconds() for update in updates],
        until=[update.until for update in updates],
        error=[update.error and excerpt(update.error) for update in updates],
        dead=[update.dead for update in updates],
        unreachable=[update.unreachable for update in updates],
    )


_updates = arrays(
    "updates",
    id=BigInteger,
    attempts=SmallInteger,
    wait=Float,
    until=DateTime(timezone=True),
    error=Text,
    dead=Boolean,
    unreachable=Boolean,
)
_second: ColumnElement[timedelta] = literal_column("interval '1 second'")
_UPDATE = (
    update(outbox)
    .where(outbox.c.id == _updates.c.id, pending)
    .values(
        attempts=_updates.c.attempts,
        available_at=func.coalesce(_updates.c.until, func.now() + _updates.c.wait * _second),
        last_error=func.coalesce(_updates.c.error, outbox.c.last_error),
        dead_at=case((_updates.c.dead, func.now())),
        unreachable_at=case((_updates.c.unreachable, func.now()), else_=outbox.c.unreachable_at),
    )
)
