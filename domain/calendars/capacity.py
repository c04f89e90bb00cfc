"""The capacity of a calendar: how many of its units are in use over time. Pure: it counts what it is given.

What has to fit is the greatest number of units in use at one moment of a period. The number of reservations that
overlap the period, or the sum of their units, would be too high, as two of them may follow each other.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple, Self


class Occupied(NamedTuple):
    """Units of a calendar that nobody else can use from `start` until just before `end`, buffers included."""

    start: datetime
    end: datetime
    units: int


class Timeline:
    """The units of one calendar that are in use, from each moment at which they change until the next.

    It is built once for many decisions. After that, each one costs only as much as overlaps its period.
    """

    __slots__ = ("_times", "_used")

    def __init__(self, occupied: Iterable[Occupied] = ()) -> None:
        # At one moment all ends and starts are added up, so what ends there is never in use beside what starts there.
        changes: defaultdict[datetime, int] = defaultdict(int)
        for start, end, units in occupied:
            changes[start] += units
            changes[end] -= units
        self._times = sorted(changes)
        self._used = list(accumulate(changes[time] for time in self._times))

    @classmethod
    def of(cls, uses: Sequence[tuple[datetime, int]]) -> Self:
        """Return a timeline on which so many units are in use from each of these moments, in order, until the next."""
        timeline = cls()
        timeline._times = [time for time, _ in uses]
        timeline._used = [used for _, used in uses]
        return timeline

    def add(self, start: datetime, end: datetime, units: int) -> None:
        """Use these units from `start` until just before `end`. A negative number gives units back."""
        first = self._boundary(start)
        last = self._boundary(end)
        self._used[first:last] = [used + units for used in self._used[first:last]]

    def greatest_use(self, start: datetime, end: datetime) -> int:
        """Return the most units that are in use at one moment from `start` until just before `end`."""
        first, until = self._within(start, end)
        at_start = self._used_before(first)
        return at_start if first == until else max(at_start, *self._used[first:until])

    def uses(self, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, int]]:
        """Return from when until when, between `start` and `end`, how many units are in use, in order."""
        first, until = self._within(start, end)
        times = [start, *self._times[first:until], end]
        return zip(times, times[1:], [self._used_before(first), *self._used[first:until]], strict=False)

    def _within(self, start: datetime, end: datetime) -> tuple[int, int]:
        """Return the place of the first change after `start`, and that of the first one from `end` on."""
        first = bisect_right(self._times, start)
        return first, bisect_left(self._times, end, first)

    def _used_before(self, place: int) -> int:
        return self._used[place - 1] if place else 0

    def _boundary(self, time: datetime) -> int:
        """Return the place of this moment among all others, where it is inserted if it is a new one."""
        place = bisect_left(self._times, time)
        if place == len(self._times) or self._times[place] != time:
            self._times.insert(place, time)
            self._used.insert(place, self._used_before(place))
        return place
