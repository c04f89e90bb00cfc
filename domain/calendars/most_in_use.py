"""How much of a busy calendar is in use at most within a time. PostgreSQL adds up what would take long to read."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Integer, Select, Uuid, bindparam, case, func, select, true
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from domain.calendars.occupancies import is_lapsed
from domain.calendars.periods import Period
from domain.calendars.table import occupancies, overlapping
from domain.runtime.database import arrays, lists
from domain.runtime.pipeline import Query, execute


class InUse(NamedTuple):
    """The most units that are in use at one moment of a time: with lapsed holds, and without them."""

    with_lapsed: int
    without: int


def most_in_use(session: Session, times: Sequence[tuple[int, Period]], *, but: UUID | None = None) -> Sequence[InUse]:
    """Return how much of calendars, by their ids, is in use at most within each of these times.

    What the reservation `but` has counts as free.
    """
    if not times:
        return []
    columns = zip(*((place, item_id, time.start, time.end) for place, (item_id, time) in enumerate(times)), strict=True)
    asked = lists(_times, **dict(zip(("place", "item_id", "start", "end"), map(list, columns), strict=True)))
    (rows,) = execute(session, [Query(_MOST_IN_USE, asked | {"but": but})])
    return [InUse(*row[1:]) for row in sorted(rows)]


_TIME = DateTime(timezone=True)
_times = arrays("times", place=Integer, item_id=BigInteger, start=_TIME, end=_TIME)


def _most_in_use() -> Select[Any]:
    """Add up the units from change to change. Those of one moment are one change: what ends there is in use no more."""
    kept = case((is_lapsed, 0), else_=occupancies.c.units)
    columns = *occupancies.c["blocked_from", "blocked_until", "units"], kept.label("kept")
    time = func.tstzrange(_times.c.start, _times.c.end)
    is_other = occupancies.c.reservation_id.is_distinct_from(bindparam("but", type_=Uuid))
    taken = overlapping(columns, _times.c.item_id, time, is_other, of=[_times]).lateral()
    moments = array([func.greatest(taken.c.blocked_from, _times.c.start), taken.c.blocked_until])
    units = (array([taken.c[name], -taken.c[name]]) for name in ("units", "kept"))
    changes = func.unnest(moments, *units).table_valued("moment", "units", "kept").render_derived()
    totals = [
        func.sum(func.sum(changes.c[name])).over(order_by=changes.c.moment).label(name) for name in ("units", "kept")
    ]
    used = select(*totals).select_from(taken.join(changes, true())).group_by(changes.c.moment).correlate(_times)
    each = used.lateral()
    greatest = [func.coalesce(func.max(each.c[name]), 0).label(name) for name in ("units", "kept")]
    most = select(*greatest).select_from(each).correlate(_times).lateral("most")
    return select(_times.c.place, *most.c).select_from(_times.join(most, true()))


_MOST_IN_USE = _most_in_use()
