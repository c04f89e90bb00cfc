"""How much of calendars is free over time, as it is by now. Reading it locks nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, DateTime, Select, func, not_, select, true, union_all
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from domain.calendars.capacity import Timeline
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

    PostgreSQL adds up what changes at the same moment: of a restaurant with 50,000 reservations a month, all begin and
    end at one of some hundred moments.
    """
    asked = lists(
        _asked,
        item_id=list(times),
        start=[time.start for time in times.values()],
        end=[time.end for time in times.values()],
    )
    # Each row is in one of the two indexes by time, and no other index fits what is asked.
    read_by_index(session)
    rows = session.execute(_CHANGES, asked)
    found = {item_id: Timeline.of_changes(list(changes)) for item_id, changes in _by_item(rows)}
    return {item_id: found.get(item_id) or Timeline() for item_id in times}


def _by_item(rows: Iterable[Any]) -> Iterator[tuple[int, Iterator[tuple[datetime, int]]]]:
    for item_id, changes in groupby(rows, key=attrgetter("item_id")):
        yield item_id, ((row.moment, row.change) for row in changes)


_TIME = DateTime(timezone=True)
_asked = arrays("asked", item_id=BigInteger, start=_TIME, end=_TIME)


def _in_use(is_in_index: ColumnElement[bool]) -> Select[Any]:
    overlaps = (
        item_range(occupancies.c.item_id).op("&&")(item_range(_asked.c.item_id)),
        time_range(occupancies).op("&&")(func.tstzrange(_asked.c.start, _asked.c.end)),
    )
    is_kept = func.coalesce(occupancies.c.held_until > CLOCK, true())
    columns = occupancies.c["blocked_from", "blocked_until", "units"]
    return select(*columns).where(*overlaps, is_in_index, is_kept).correlate(_asked)


def _changes() -> Select[Any]:
    """Add up, for each calendar and each moment, the units that are in use from then on, and those that are not."""
    used = union_all(_in_use(occupancies.c.is_exclusive), _in_use(not_(occupancies.c.is_exclusive))).lateral("used")
    bounds = func.unnest(array([used.c.blocked_from, used.c.blocked_until]), array([used.c.units, -used.c.units]))
    change = bounds.table_valued("moment", "units", name="change").render_derived("change")
    key = _asked.c.item_id, change.c.moment
    total = func.sum(change.c.units)
    joined = _asked.join(used, true()).join(change, true())
    return select(*key, total.label("change")).select_from(joined).group_by(*key).having(total != 0).order_by(*key)


_CHANGES = _changes()
