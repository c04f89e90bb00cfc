"""The low watermark of a lane: the id up to which no row of the lane is ready, so that no claim looks there.

Settled rows stay in the index of ready rows for as long as any transaction of the database holds an old snapshot.
Without a low watermark each claim would walk over all of them.

A row may commit after rows with higher ids, and must not end up below the watermark. So the watermark rises no
further than the commit horizon. And a settled or waiting row becomes ready again in one way only: by
`make_due_rows_ready`, which resets the watermark.
"""

from typing import Any

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.orm import Session

from domain.outbox.delivery.lanes import LeasedLane
from domain.outbox.table import BY_LANE, lanes, outbox, ready, within


def reset(session: Session, lane: LeasedLane) -> None:
    """Have a lane that the caller has leased and locked read from its beginning again."""
    ours = update(lanes).where(lanes.c.destination == lane.destination, lanes.c.lane == lane.number)
    session.execute(ours.where(lanes.c.low_watermark > 0).values(low_watermark=0))


def _has_ready(*, more_than: Any = None, **bound: Any) -> ColumnElement[bool]:
    """Return whether a lane has more ready rows than so many within a bound: one of those of `within`."""
    return (
        select(outbox.c.id)
        .where(ready, within(BY_LANE, (lanes.c.destination, lanes.c.lane), **bound))
        .order_by(*BY_LANE)
        .limit(1)
        .offset(more_than)
        .correlate(lanes)
        .scalar_subquery()
        .is_not(None)
    )


def more_ready_than(rows: ColumnElement[int]) -> ColumnElement[bool]:
    """Return whether a lane has more ready rows than so many that claims see."""
    return _has_ready(more_than=rows, above=lanes.c.low_watermark)


#: Whether a lane has a ready row that claims see, and one that no claim sees.
has_ready_above, has_ready_below = _has_ready(above=lanes.c.low_watermark), _has_ready(to=lanes.c.low_watermark)


def reset_wrong_low_watermarks(session: Session) -> int:
    """Reset each low watermark that has ready rows below it. Return how many.

    Workers leave none. But an operator may make rows ready by hand, or let the ids begin anew, and no row may be
    stuck for ever. A run that is under way keeps the reset (see `release`).
    """
    # A lane that is locked is being claimed or released, which no repair has to wait for.
    found = (
        select(lanes.c.destination, lanes.c.lane).where(has_ready_below).with_for_update(skip_locked=True).cte("found")
    )
    is_found = and_(lanes.c.destination == found.c.destination, lanes.c.lane == found.c.lane)
    wrong = update(lanes).where(is_found).values(low_watermark=0)
    return len(session.execute(wrong.returning(lanes.c.lane)).all())
