"""Reading the rows of a lane that is leased to this process."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import BigInteger, SmallInteger, String, Text, any_, bindparam, cast, delete, func, select, true, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from domain.outbox.delivery import low_watermark
from domain.outbox.delivery.lanes import LeasedLane
from domain.outbox.table import (
    BY_AGGREGATE,
    BY_DUE_TIME,
    BY_LANE,
    Row,
    calls,
    lanes,
    outbox,
    ready,
    waiting,
    within,
)
from domain.runtime.database import CLOCK, arrays, lists

#: At most this many waiting rows become ready in one statement, so that the statement never outlasts a lease, however
#: large the backlog of an outage is.
DUE_ROWS_LIMIT = 10_000

#: No row waits longer for its next attempt: a route may ask for a day at most, and so may a Retry-After.
LONGEST_WAIT = timedelta(days=1)


def make_due_rows_ready(session: Session, lane: LeasedLane) -> int:
    """Make the waiting rows whose time has come ready, the earliest first. Return how many.

    Their ids may be anywhere, so the low watermark of the lane is reset.
    """
    due = (
        select(outbox.c.id)
        .where(waiting, within(BY_DUE_TIME, (lane.destination, lane.number), to=CLOCK))
        .order_by(*BY_DUE_TIME)
        .limit(DUE_ROWS_LIMIT)
    )
    # As an array, so that each row is found by its id, however many PostgreSQL expects.
    made_ready = update(outbox).where(outbox.c.id == any_(func.array(due.scalar_subquery()))).values(available_at=None)
    ids = session.execute(made_ready.returning(outbox.c.id)).scalars().all()
    if ids:
        low_watermark.reset(session, lane)
        # Calls that should have ended by now: nobody waits for them any longer.
        session.execute(delete(calls).where(calls.c.id == any_(cast(ids, ARRAY(BigInteger)))))
    return len(ids)


def make_impossible_waits_due(session: Session) -> int:
    """Make rows due that wait for longer than any row can: the clock has stepped back since. Return how many.

    Those that are left are made due by the next call.
    """
    rows = session.execute(_IMPOSSIBLE_WAITS.returning(outbox.c.id))
    return len(rows.all())


def fetch(session: Session, lane: LeasedLane, *, after: int, limit: int) -> Sequence[Row]:
    """Return up to `limit` ready rows in order, from beyond the id `after`.

    `after` is the last id that this run over the lane has fetched, so that settled rows are not walked over again.
    Each new run starts at the low watermark, below every row that may yet commit, so no row that commits late is
    skipped. No such row is overtaken either: the next row of its aggregate gets its id after that commit, so it is
    newer than all rows that were there when this run began, and is left to the next run. A row behind a waiting one
    of its aggregate comes with `waits_until` and must not be delivered.
    """
    parameters = {
        "destination": lane.destination,
        "lane": lane.number,
        "after": after,
        "newest": lane.newest,
        "limit": limit,
    }
    session.execute(_IN_THE_ORDER_OF_AN_INDEX)
    return list(map(Row._make, session.execute(_FETCH, parameters).all()))


def fetch_few(session: Session, leased: Sequence[LeasedLane], *, limit: int) -> Sequence[Row]:
    """Return up to `limit` ready rows of each of these lanes of one destination, lane by lane. See `fetch`."""
    first = leased[0]
    numbers = lists(_lanes, lane=[one.number for one in leased], above=[one.low_watermark for one in leased])
    parameters = {"destination": first.destination, "newest": first.newest, "limit": limit, **numbers}
    session.execute(_IN_THE_ORDER_OF_AN_INDEX)
    return list(map(Row._make, session.execute(_FETCH_FEW, parameters)))


_too_late = (
    select(outbox.c.id)
    .where(waiting, within(BY_DUE_TIME, (lanes.c.destination, lanes.c.lane), above=CLOCK + LONGEST_WAIT))
    .order_by(*BY_DUE_TIME)
    .limit(DUE_ROWS_LIMIT)
    .correlate(lanes)
    .lateral("too_late")
)
_IMPOSSIBLE_WAITS = (
    update(outbox)
    .where(outbox.c.id.in_(select(_too_late.c.id).select_from(lanes.join(_too_late, true()))), waiting)
    .values(available_at=CLOCK)
)

# Two indexes lead to the waiting rows of a destination. While its statistics are old, PostgreSQL may take the one whose
# rows it has to sort, again for each row. The options are for the rest of the transaction, which reads nothing else.
_IN_THE_ORDER_OF_AN_INDEX = select(
    *(func.set_config(name, "off", True) for name in ("enable_sort", "enable_incremental_sort", "enable_bitmapscan"))
)
_earlier = outbox.alias("earlier")
_earlier_by_aggregate = [_earlier.c[column.name] for column in BY_AGGREGATE]
_waits_until = (
    select(_earlier.c.available_at)
    .where(_earlier.c.processed_at.is_(None), _earlier.c.dead_at.is_(None), _earlier.c.available_at.is_not(None))
    .where(within(_earlier_by_aggregate, (outbox.c.destination, outbox.c.aggregate_id), to=outbox.c.id))
    .order_by(*_earlier_by_aggregate)
    .limit(1)
    .correlate(outbox)
    .scalar_subquery()
)
_LANE = bindparam("destination", type_=String), bindparam("lane", type_=SmallInteger)
_AFTER, _NEWEST = bindparam("after", type_=BigInteger), bindparam("newest", type_=BigInteger)
_ROW = (
    outbox.c.id,
    outbox.c.event_id,
    outbox.c.aggregate_id,
    outbox.c.type,
    cast(outbox.c.payload, Text).label("payload"),
    cast(outbox.c.headers, Text).label("headers"),
    outbox.c.attempts,
    outbox.c.created_at,
    outbox.c.unreachable_at,
    _waits_until.label("waits_until"),
    CLOCK.label("fetched_at"),
)
_FETCH = (
    select(*_ROW)
    .where(ready, within(BY_LANE, _LANE, above=_AFTER, to=_NEWEST))
    .order_by(*BY_LANE)
    .limit(bindparam("limit"))
)
_lanes = arrays("lanes", lane=SmallInteger, above=BigInteger)
_of_lane = (
    select(*_ROW)
    .where(ready, within(BY_LANE, (_LANE[0], _lanes.c.lane), above=_lanes.c.above, to=_NEWEST))
    .order_by(*BY_LANE)
    .limit(bindparam("limit"))
    .correlate(_lanes)
    .lateral("of_lane")
)
_FETCH_FEW = select(_of_lane).select_from(_lanes.join(_of_lane, true()))
