"""What can be reserved instead of a period that is not free. Pure: it is given what is occupied, and the time."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from heapq import nsmallest
from operator import attrgetter

from domain.calendars.capacity import Timeline
from domain.calendars.free_time import Step, free_spans, steps
from domain.calendars.periods import EARLIEST, LATEST, MAX_PERIOD, Period
from domain.calendars.rules import zone
from domain.calendars.zones import moved_by_days
from domain.items import Item

#: How long before and after the wanted period alternatives are looked for. One that is further away helps few clients.
SEARCH = timedelta(days=14)

#: What lasts longer than this is a stay, or a whole day. It is moved by whole days, so that it still begins and ends at
#: the same times of day: nobody checks in at three in the morning because a guest before them leaves then.
LONGEST_MOVED_BY_HOURS = timedelta(hours=12)


def searched(wanted: Period, not_before: datetime, reach: timedelta = SEARCH) -> Period | None:
    """Return the time in which alternatives to a period are looked for. There is none if all of it is over."""
    margin = min(reach, (MAX_PERIOD - wanted.duration) // 2)
    start = max(wanted.start - margin, not_before, EARLIEST)
    end = min(wanted.end + margin, LATEST)
    return Period(start, end) if start < end else None


def other_times(
    item: Item, wanted: Period, quantity: int, timeline: Timeline, window: Period, limit: int
) -> list[Period]:
    """Return other periods within a window in which that many units of a calendar are free, the nearest first.

    They last as long as the wanted one, or begin and end at the same times of other days if that is long. The timeline
    has what is occupied within the window, and within the buffers around it.
    """
    free = free_spans(steps(item, window, timeline), quantity)
    is_long = wanted.duration > LONGEST_MOVED_BY_HOURS
    found = _other_days(item, wanted, free) if is_long else _other_hours(wanted, free, limit)
    return nsmallest(limit, found, key=lambda period: abs(period.start - wanted.start))


def _other_hours(wanted: Period, free: Sequence[Step], limit: int) -> Iterator[Period]:
    """Yield, of each span that is long enough, the nearest period, and then others that do not overlap it."""
    for span in free:
        last = span.end - wanted.duration
        nearest = min(max(wanted.start, span.start), last)
        away = wanted.duration if nearest >= wanted.start else -wanted.duration
        for start in (nearest + number * away for number in range(limit)):
            if span.start <= start <= last:
                yield Period(start, start + wanted.duration)


def _other_days(item: Item, wanted: Period, free: Sequence[Step]) -> Iterator[Period]:
    """Yield the same times of other days, if all of that is free."""
    for days in range(-SEARCH.days, SEARCH.days + 1):
        start, end = (moved_by_days(moment, days, zone(item)) for moment in (wanted.start, wanted.end))
        place = bisect_right(free, start, key=attrgetter("start"))
        if place and end <= free[place - 1].end:
            yield Period(start, end)
