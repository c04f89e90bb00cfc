"""When a calendar has how many units free. Pure: it is given what is occupied.

Buffers and opening hours are accounted for. So a period can be reserved exactly if each of its steps has enough units.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, count, groupby, takewhile
from typing import NamedTuple
from zoneinfo import ZoneInfo

from domain.calendars.capacity import Timeline
from domain.calendars.periods import Period
from domain.calendars.rules import blocked, buffers, open_spans
from domain.calendars.zones import moved_by_days
from domain.items import Item

ONE_DAY = timedelta(days=1)


class Step(NamedTuple):
    """From `start` until just before `end`, that many units are free."""

    start: datetime
    end: datetime
    free: int


def steps(item: Item, window: Period, timeline: Timeline) -> list[Step]:
    """Return how many units of a calendar are free, from the start of the window until its end.

    None are free while the calendar is closed. The timeline has what is occupied within the window, and within the
    buffers around it.
    """
    return _merged(_pieces(item, window, _with_buffers(item, window, timeline)))


def _with_buffers(item: Item, window: Period, timeline: Timeline) -> Timeline:
    """Return how many units a reservation of each moment of the window would meet, as it needs its buffers as well.

    It meets a use from the moment at which the buffer after it reaches the start of the use, until the buffer before it
    no longer reaches the end.
    """
    before, after = buffers(item)
    if not before and not after:
        return timeline
    around = blocked(item, window)
    met = [_Met(start - after, end + before, used) for start, end, used in timeline.uses(around.start, around.end)]
    return Timeline.of(list(_most_met(met, window)))


class _Met(NamedTuple):
    """A use that is met by reservations of the moments from `first` until just before `until`."""

    first: datetime
    until: datetime
    used: int


def _most_met(uses: Sequence[_Met], window: Period) -> Iterator[tuple[datetime, int]]:
    """Yield the most units of a use that is met, from each moment on at which that may change.

    The uses are in order of `first`, and so of `until`. Those are kept that are met now, without the ones that end
    before a greater one: so the most units are those of the first, and each use is looked at once.
    """
    kept: deque[_Met] = deque()
    place = 0
    for moment in _changes(uses, window):
        while place < len(uses) and uses[place].first <= moment:
            while kept and kept[-1].used <= uses[place].used:
                kept.pop()
            kept.append(uses[place])
            place += 1
        while kept[0].until <= moment:
            kept.popleft()
        yield moment, kept[0].used


def _changes(uses: Sequence[_Met], window: Period) -> list[datetime]:
    """Return the start of the window, and when uses begin or end to be met within it, in order."""
    # Both are in order already, and so Python only has to merge them.
    moments = sorted([*(use.first for use in uses), *(use.until for use in uses)])
    within = moments[bisect_right(moments, window.start) : bisect_left(moments, window.end)]
    return [window.start, *dict.fromkeys(within)]


def _pieces(item: Item, window: Period, timeline: Timeline) -> Iterator[Step]:
    """Yield the window piece by piece. Some have as many free units as the piece before."""
    assert item.capacity is not None, "it is a calendar"
    closed_since = window.start
    for span in open_spans(item, window):
        if closed_since < span.start:
            yield Step(closed_since, span.start, 0)
        for start, end, used in timeline.uses(span.start, span.end):
            yield Step(start, end, max(0, item.capacity - used))
        closed_since = span.end
    if closed_since < window.end:
        yield Step(closed_since, window.end, 0)


def free_throughout(item: Item, period: Period, timeline: Timeline) -> int:
    """Return how many units of a calendar can be reserved for this period."""
    return min(step.free for step in steps(item, period, timeline))


def free_spans(steps: Iterable[Step], quantity: int) -> list[Step]:
    """Return from when until when that many units are free, in order. No two of these spans touch."""
    runs = groupby(steps, key=lambda step: step.free >= quantity)
    spans = (list(run) for is_enough, run in runs if is_enough)
    return [Step(span[0].start, span[-1].end, quantity) for span in spans]


def _merged(pieces: Iterable[Step]) -> list[Step]:
    """Join what has the same number of free units as the piece before."""
    merged: list[Step] = []
    for piece in pieces:
        if merged and merged[-1].free == piece.free:
            merged[-1] = Step(merged[-1].start, piece.end, piece.free)
        else:
            merged.append(piece)
    return merged


def free_starts(
    steps: Sequence[Step], quantity: int, duration: timedelta, every: timedelta, zone: ZoneInfo
) -> Iterator[datetime]:
    """Yield when a period of that duration, in which that many units are free, can start.

    Tried are the start of the steps and, from there on, one start after the other in the distance `every`. If that is
    whole days, all have the same wall time, also after the clock was changed.
    """
    starts = _grid(steps[0].start, steps[-1].end, every, zone)
    spans = iter(free_spans(steps, quantity))
    span = next(spans, None)
    for start in starts:
        while span is not None and span.end < start + duration:
            span = next(spans, None)
        if span is None:
            return
        if span.start <= start:
            yield start


def _grid(start: datetime, end: datetime, every: timedelta, zone: ZoneInfo) -> Iterator[datetime]:
    days, rest = divmod(every, ONE_DAY)
    later = (start + number * every if rest else moved_by_days(start, number * days, zone) for number in count(1))
    return takewhile(lambda moment: moment < end, chain([start], later))
