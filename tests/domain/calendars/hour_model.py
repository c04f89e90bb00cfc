"""A calendar hour by hour: the model beside which free time and alternatives are tested."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from domain.calendars.capacity import Occupied, Timeline
from domain.calendars.opening_hours import DAYS, OpeningHours, Span
from domain.calendars.periods import Period
from domain.calendars.rules import is_open
from domain.items import Item, Kind
from tests.domain.calendars.strategies import FIRST, HOUR, hours, occupied


def a_calendar(capacity: int = 1, buffers: tuple[int, int] = (0, 0), **settings: Any) -> Item:
    """A calendar with buffers of so many hours, without a database."""
    return Item(
        id=1,
        sku="ROOM-101",
        name="Room",
        available_quantity=0,
        stock_quantity=0,
        kind=Kind.CALENDAR,
        capacity=capacity,
        buffer_before_seconds=buffers[0] * 3600,
        buffer_after_seconds=buffers[1] * 3600,
        created_at=FIRST,
        updated_at=FIRST,
        **{"time_zone": "UTC"} | settings,
    )


@dataclass
class HourModel:
    """What is taken of a calendar."""

    item: Item
    taken: Sequence[Occupied]

    def timeline(self) -> Timeline:
        return Timeline(self.taken)

    def free(self, period: Period) -> int:
        """Look at each hour: of the period, whether it is open; and with the buffers, how much is taken."""
        assert self.item.capacity is not None
        open_hours = (
            Period(period.start + hour * HOUR, period.start + (hour + 1) * HOUR) for hour in range(length(period))
        )
        if not all(is_open(self.item, hour) for hour in open_hours):
            return 0
        use: Counter[int] = Counter()
        for start, end, units in self.taken:
            use.update(dict.fromkeys(hours(start, end), units))
        before, after = self.item.buffer_before_seconds or 0, self.item.buffer_after_seconds or 0
        around = hours(period.start - timedelta(seconds=before), period.end + timedelta(seconds=after))
        return max(0, self.item.capacity - max(use[hour] for hour in around))


def length(period: Period) -> int:
    return period.duration // HOUR


def parts(window: Period, duration: int) -> list[Period]:
    """Return all periods of so many hours within a window."""
    starts = range(length(window) - duration + 1)
    return [Period(window.start + start * HOUR, window.start + (start + duration) * HOUR) for start in starts]


# Nothing is filtered: hypothesis gives up where too much is thrown away.
_hours = st.lists(st.sampled_from(range(25)), unique=True, max_size=6).map(sorted)
_days = _hours.map(lambda times: [str(Span(a * 60, b * 60)) for a, b in zip(times[::2], times[1::2], strict=False)])
_open_day = st.builds(lambda first, last: [str(Span(first * 60, last * 60))], st.integers(0, 11), st.integers(12, 24))
_weeks = st.builds(
    lambda week, day, hours: {**week, day: week[day] or hours},
    st.fixed_dictionaries(dict.fromkeys(DAYS, _days)),
    st.sampled_from(DAYS),
    _open_day,
)
_opening_hours = st.booleans().flatmap(
    lambda some: _weeks.map(lambda week: OpeningHours.of(week).text) if some else st.none()
)
_buffer = st.integers(0, 3)
items = st.builds(
    lambda capacity, buffers, opening_hours: a_calendar(capacity, buffers, opening_hours=opening_hours),
    st.integers(1, 5),
    st.tuples(_buffer, _buffer),
    _opening_hours,
)
models = st.builds(HourModel, items, st.lists(occupied, max_size=10))
