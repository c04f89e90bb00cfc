"""Writing down what became of a batch, if the lane is still ours."""

import random
from collections.abc import Sequence
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
    column,
    func,
    literal_column,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain.outbox.delivery import breaker, outcomes
from domain.outbox.delivery.lanes import Lane, fence, release
from domain.outbox.delivery.outcomes import (
    Change,
    Delivered,
    Delivery,
    Moot,
    Policy,
    Refused,
    Rejected,
    Retries,
    Unreachable,
    excerpt,
)
from domain.outbox.table import outbox, pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What was written: the rows that left, the rows that are dead now, how many wait.

    `is_up` and `is_down` say what the batch has shown of the destination; it may be neither.
    `is_in_doubt`: a row took the blame for finding it down, and the next may show otherwise.
    `read_on_after` is the id from beyond which this hold may fetch: not beyond a row that was
    held and is still ready, or a later one of its aggregate would overtake it. `at` is the database's time.
    """

    at: datetime
    processed: Sequence[Delivery]
    dead: Sequence[Change]
    waiting: int
    read_on_after: int
    is_up: bool
    is_down: bool
    is_in_doubt: bool


def settle(
    session: Session, lane: Lane, deliveries: Sequence[Delivery], *, retries: Retries, is_last: bool = False
) -> Settlement | None:
    """Write the outcomes of a batch. Return None, with nothing written, if the lane is not ours any more.

    With `is_last` the lane is given back along with it.
    """
    processed = [delivery for delivery in deliveries if isinstance(delivery[1], Delivered | Refused | Moot)]
    settled_to = deliveries[-1][0].id if len(processed) == len(deliveries) else 0
    at = release(session, lane, settled_to=settled_to) if is_last else fence(session, lane)
    if at is None:
        return None
    if processed:
        session.execute(_PROCESSED, {"ids": [row.id for row, _ in processed]})
    is_up = any(isinstance(outcome, Delivered | Refused | Rejected) for _, outcome in deliveries)
    if lane.probing and is_up:
        breaker.close(session, lane.destination)
    changes = [] if len(processed) == len(deliveries) else _rewrite(session, lane, deliveries, retries)
    return Settlement(
        at=at,
        processed=processed,
        dead=[change for change in changes if change.dead],
        waiting=sum(not change.dead for change in changes),
        read_on_after=_read_on_after(deliveries, processed, changes),
        is_up=is_up,
        is_down=any(change.unreachable and not change.own_fault for change in changes),
        is_in_doubt=any(change.own_fault for change in changes),
    )


def _read_on_after(deliveries: Sequence[Delivery], processed: Sequence[Delivery], changes: Sequence[Change]) -> int:
    if len(processed) + len(changes) == len(deliveries):
        return deliveries[-1][0].id
    done = {row.id for row, _ in processed} | {change.row.id for change in changes}
    return next(row.id for row, _ in deliveries if row.id not in done) - 1


_PROCESSED = (
    update(outbox)
    .where(outbox.c.id == any_(cast(bindparam("ids"), ARRAY(BigInteger))), pending)
    .values(processed_at=func.clock_timestamp())
)


def _rewrite(session: Session, lane: Lane, deliveries: Sequence[Delivery], retries: Retries) -> Sequence[Change]:
    """Write down what did not leave, and open the breaker if the destination is down."""
    state = breaker.lock(session, lane.destination)
    policy = Policy(retries=retries, pause=timedelta(0), recovered_at=state.recovered_at, roll=random.random)
    down = [
        outcome
        for row, outcome in deliveries
        if isinstance(outcome, Unreachable) and not outcomes.is_its_own_fault(row, outcome, state.recovered_at)
    ]
    if any(outcome.gone for outcome in down):
        breaker.pause(session, lane.destination, reason=next(outcome.error for outcome in down if outcome.gone))
    elif down:
        pause = breaker.trip(session, lane.destination, state, down, probing=lane.probing)
        policy = replace(policy, pause=pause)
    changes = outcomes.changes(deliveries, policy)
    if changes:
        session.execute(_CHANGED, _arrays(changes))
    return changes


def _arrays(changes: Sequence[Change]) -> dict[str, Any]:
    return {
        "ids": [change.row.id for change in changes],
        "attempts": [change.attempts for change in changes],
        "waits": [None if change.wait is None else change.wait.total_seconds() for change in changes],
        "untils": [change.until for change in changes],
        "errors": [change.error and excerpt(change.error) for change in changes],
        "deads": [change.dead for change in changes],
        "unreachables": [change.unreachable for change in changes],
    }


_changed = (
    func.unnest(
        cast(bindparam("ids"), ARRAY(BigInteger)),
        cast(bindparam("attempts"), ARRAY(SmallInteger)),
        cast(bindparam("waits"), ARRAY(Float)),
        cast(bindparam("untils"), ARRAY(DateTime(timezone=True))),
        cast(bindparam("errors"), ARRAY(Text)),
        cast(bindparam("deads"), ARRAY(Boolean)),
        cast(bindparam("unreachables"), ARRAY(Boolean)),
    )
    .table_valued(
        column("id", BigInteger),
        column("attempts", SmallInteger),
        column("wait", Float),
        column("until", DateTime(timezone=True)),
        column("error", Text),
        column("dead", Boolean),
        column("unreachable", Boolean),
    )
    .render_derived("changed")
)
_second: ColumnElement[timedelta] = literal_column("interval '1 second'")
_CHANGED = (
    update(outbox)
    .where(outbox.c.id == _changed.c.id, pending)
    .values(
        attempts=_changed.c.attempts,
        available_at=func.coalesce(_changed.c.until, func.now() + _changed.c.wait * _second),
        last_error=func.coalesce(_changed.c.error, outbox.c.last_error),
        dead_at=case((_changed.c.dead, func.now())),
        unreachable_at=case((_changed.c.unreachable, func.now()), else_=outbox.c.unreachable_at),
    )
)
