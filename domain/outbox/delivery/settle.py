"""Settling: writing the outcomes of a batch, if the lane is still leased to this process."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from domain.outbox.delivery.breaker import Breaker
from domain.outbox.delivery.lanes import LeasedLane, fence, release
from domain.outbox.delivery.outcomes import (
    Circumstances,
    Declined,
    Delivered,
    Delivery,
    Obsolete,
    Rejected,
    RetryPolicy,
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
    session: Session,
    lane: LeasedLane,
    deliveries: Sequence[Delivery],
    *,
    retry_policy: RetryPolicy,
    is_last: bool = False,
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
        session.execute(_MARK_PROCESSED, {"ids": [row.id for row, _ in processed]})
    is_up = any(isinstance(outcome, Delivered | Declined | Rejected) for _, outcome in deliveries)
    if lane.probing and is_up:
        breaker.close(session, lane.destination)
    is_all = len(processed) == len(deliveries)
    row_updates = [] if is_all else _update_undelivered(session, lane, deliveries, retry_policy)
    return Settlement(
        at=at,
        processed=processed,
        dead=[one for one in row_updates if one.dead],
        waiting=sum(not one.dead for one in row_updates),
        read_on_after=_read_on_after(deliveries, processed, row_updates),
        is_up=is_up,
        is_down=any(one.unreachable and not one.own_fault for one in row_updates),
        is_in_doubt=any(one.own_fault for one in row_updates),
    )


def _read_on_after(
    deliveries: Sequence[Delivery], processed: Sequence[Delivery], row_updates: Sequence[RowUpdate]
) -> int:
    if len(processed) + len(row_updates) == len(deliveries):
        return deliveries[-1][0].id
    done = {row.id for row, _ in processed} | {one.row.id for one in row_updates}
    return next(row.id for row, _ in deliveries if row.id not in done) - 1


_MARK_PROCESSED = (
    update(outbox)
    .where(outbox.c.id == any_(cast(bindparam("ids"), ARRAY(BigInteger))), pending)
    .values(processed_at=func.clock_timestamp())
)


def _update_undelivered(
    session: Session, lane: LeasedLane, deliveries: Sequence[Delivery], retry_policy: RetryPolicy
) -> Sequence[RowUpdate]:
    """Update the rows that were not delivered, and open the breaker if the destination is down."""
    state = breaker.lock(session, lane.destination)
    at_fault = outcomes.rows_at_fault(deliveries, state.recovered_at)
    outages = [outcome for row, outcome in deliveries if isinstance(outcome, Unreachable) and row.id not in at_fault]
    circumstances = Circumstances(
        retry_policy=retry_policy,
        open_for=_open_breaker(session, lane, state, outages),
        at_fault=at_fault,
        roll=random.random,
    )
    row_updates = outcomes.row_updates(deliveries, circumstances)
    if row_updates:
        session.execute(_UPDATE_ROWS, _new_values_of(row_updates))
    return row_updates


def _open_breaker(session: Session, lane: LeasedLane, state: Breaker, outages: Sequence[Unreachable]) -> timedelta:
    """Open the breaker after an outage, or pause a destination that is gone. Return how long the breaker is open."""
    gone = next((outage for outage in outages if outage.gone), None)
    if gone:
        breaker.pause(session, lane.destination, reason=gone.error)
    elif outages:
        return breaker.trip(session, lane.destination, state, outages, probing=lane.probing)
    return timedelta(0)


def _new_values_of(row_updates: Sequence[RowUpdate]) -> Mapping[str, Sequence[Any]]:
    return lists(
        _new_values,
        id=[one.row.id for one in row_updates],
        attempts=[one.attempts for one in row_updates],
        wait=[None if one.wait is None else one.wait.total_seconds() for one in row_updates],
        until=[one.until for one in row_updates],
        error=[one.error and excerpt(one.error) for one in row_updates],
        dead=[one.dead for one in row_updates],
        unreachable=[one.unreachable for one in row_updates],
    )


_new_values = arrays(
    "new_values",
    id=BigInteger,
    attempts=SmallInteger,
    wait=Float,
    until=DateTime(timezone=True),
    error=Text,
    dead=Boolean,
    unreachable=Boolean,
)
_second: ColumnElement[timedelta] = literal_column("interval '1 second'")
_UPDATE_ROWS = (
    update(outbox)
    .where(outbox.c.id == _new_values.c.id, pending)
    .values(
        attempts=_new_values.c.attempts,
        available_at=func.coalesce(_new_values.c.until, func.now() + _new_values.c.wait * _second),
        last_error=func.coalesce(_new_values.c.error, outbox.c.last_error),
        dead_at=case((_new_values.c.dead, func.now())),
        unreachable_at=case((_new_values.c.unreachable, func.now()), else_=outbox.c.unreachable_at),
    )
)
