"""How much of calendars is free over time, as it is by now. Reading it locks nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, DateTime, Select, func, not_, select, true, union_all
from sqlalchemy.orm import Session

from domain.calendars.capacity import Occupied, Timeline
from domain.calendars.free_time import Step, free_starts, steps
from domain.calendars.periods import Period
from domain.calendars.rules import blocked, zone
from domain.calendars.table import item_range, occupancies, time_range
from domain.items import Item, Kind
from domain.runtime.database import CLOCK, arrays, lists, read_by_index
from domain.runtime.errors import Invalid

#: A quarter of a year, with the clock put back in it. Nobody looks at more of a calendar at once.
MAX_WINDOW = timedelta(days=93)

#: So many starts are tried at most: each five minutes of a month.
MAX_STARTS = 10_000

MINUTE = timedelta(minutes=1)


class Starts(NamedTuple):
    """What is asked for besides free units: when `quantity` units are free for a `duration`. See `free_starts`."""

    quantity: int
    duration: timedelta
    every: timedelta


class Availability(NamedTuple):
    """The free units of a calendar, step by step, and the free starts, if there was a question for them."""

    item: Item
    steps: Sequence[Step]
    starts: Sequence[datetime]


def availability(
    session: Session, items: Sequence[Item], window: Period, wanted: Starts | None = None
) -> list[Availability]:
    """Return what is free of each of these calendars within the window. Raises Invalid."""
    _require_calendars(items)
    _require_limits(window, wanted)
    read_by_index(session)
    timelines = read_timelines(session, {item.id: blocked(item, window) for item in items})
    return [_availability(item, window, timelines[item.id], wanted) for item in items]


def _require_calendars(items: Sequence[Item]) -> None:
    for item in items:
        if item.kind != Kind.CALENDAR:
            raise Invalid("item_id", f"{item.sku} is stock, which has no free time")


def _require_limits(window: Period, wanted: Starts | None) -> None:
    if window.duration > MAX_WINDOW:
        raise Invalid("end", f"it must be at most {MAX_WINDOW.days} days after start")
    if wanted is None:
        return
    if wanted.duration <= timedelta():
        raise Invalid("duration", "it must be longer than nothing")
    if wanted.every < MINUTE:
        raise Invalid("step", "it must be a minute or more")
    if window.duration / wanted.every > MAX_STARTS:
        raise Invalid("step", f"there would be more than {MAX_STARTS} starts in that time; give a longer step")


def _availability(item: Item, window: Period, timeline: Timeline, wanted: Starts | None) -> Availability:
    found = steps(item, window, timeline)
    starts = wanted and free_starts(found, wanted.quantity, wanted.duration, wanted.every, zone(item))
    return Availability(item, found, list(starts or ()))


def read_timelines(session: Session, times: Mapping[int, Period]) -> dict[int, Timeline]:
    """Return what is in use of calendars, by their ids, each within its time. Lapsed holds are free.

    Each row is in one of the two indexes by time. The caller lets PostgreSQL read by index, see `read_by_index`.
    """
    bounds = [(time.start, time.end) for time in times.values()]
    starts, ends = ([bound[place] for bound in bounds] for place in (0, 1))
    occupied: dict[int, list[Occupied]] = {item_id: [] for item_id in times}
    rows = session.execute(_OCCUPIED, lists(_asked, item_id=list(times), start=starts, end=ends)).all()
    for item_id, start, end, units in rows:
        occupied[item_id].append(Occupied(start, end, units))
    return {item_id: Timeline(of_item) for item_id, of_item in occupied.items()}


_TIME = DateTime(timezone=True)
_asked = arrays("asked", item_id=BigInteger, start=_TIME, end=_TIME)


def _in_index(is_in_index: ColumnElement[bool]) -> Select[Any]:
    overlaps = (
        item_range(occupancies.c.item_id).op("&&")(item_range(_asked.c.item_id)),
        time_range(occupancies).op("&&")(func.tstzrange(_asked.c.start, _asked.c.end)),
    )
    is_kept = func.coalesce(occupancies.c.held_until > CLOCK, true())
    columns = occupancies.c["blocked_from", "blocked_until", "units"]
    return select(*columns).where(*overlaps, is_in_index, is_kept).correlate(_asked)


def _occupied() -> Select[Any]:
    """Read what is occupied. What has the same time is added up: a restaurant has many reservations and few times."""
    found = union_all(_in_index(occupancies.c.is_exclusive), _in_index(not_(occupancies.c.is_exclusive)))
    used = found.lateral("used")
    key = _asked.c.item_id, used.c.blocked_from, used.c.blocked_until
    return select(*key, func.sum(used.c.units)).select_from(_asked.join(used, true())).group_by(*key)


_OCCUPIED = _occupied()
