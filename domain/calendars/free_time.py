"""When a calendar has how many units free. Pure: it is given what is occupied.

Buffers and opening hours are accounted for. So a period can be reserved exactly if each of its steps has enough units.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain, count, groupby, pairwise, takewhile
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
    return list(_merged(_pieces(item, window, timeline)))


def _pieces(item: Item, window: Period, timeline: Timeline) -> Iterator[Step]:
    """Yield the window piece by piece. Some are empty, and some have as many free units as the one before."""
    changes = _changes(item, window, timeline)
    closed_since = window.start
    for span in open_spans(item, window):
        yield Step(closed_since, span.start, 0)
        yield from _open_pieces(item, span, changes, timeline)
        closed_since = span.end
    yield Step(closed_since, window.end, 0)


def _changes(item: Item, window: Period, timeline: Timeline) -> Sequence[datetime]:
    """Return when the number of free units may change, in order.

    It changes when the buffer after a reservation that ends then, or the one before a reservation that starts then,
    reaches a moment at which the use changes.
    """
    before, after = buffers(item)
    around = blocked(item, window)
    moments = timeline.changes(around.start, around.end)
    if not before and not after:
        return moments
    return sorted({moved for moment in moments for moved in (moment - after, moment + before)})


def _open_pieces(item: Item, span: Period, changes: Sequence[datetime], timeline: Timeline) -> Iterator[Step]:
    assert item.capacity is not None, "it is a calendar"
    before, after = buffers(item)
    within = changes[bisect_right(changes, span.start) : bisect_left(changes, span.end)]
    for start, end in pairwise([span.start, *within, span.end]):
        yield Step(start, end, max(0, item.capacity - timeline.greatest_use(start - before, end + after)))


def free_throughout(item: Item, period: Period, timeline: Timeline) -> int:
    """Return how many units of a calendar can be reserved for this period."""
    return min(step.free for step in steps(item, period, timeline))


def free_spans(steps: Iterable[Step], quantity: int) -> list[Step]:
    """Return from when until when that many units are free, in order. No two of these spans touch."""
    enough = _merged(step._replace(free=min(step.free, quantity)) for step in steps)
    return [span for span in enough if span.free == quantity]


def _merged(pieces: Iterable[Step]) -> Iterator[Step]:
    """Leave out what is empty, and join what has the same number of free units as the one before."""
    some = (piece for piece in pieces if piece.start < piece.end)
    for free, alike in groupby(some, key=lambda piece: piece.free):
        first, *others = alike
        yield Step(first.start, others[-1].end if others else first.end, free)


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
