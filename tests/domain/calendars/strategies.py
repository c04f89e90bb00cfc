"""What hypothesis makes calendars of: hours of a few days, so that much overlaps, touches and nests."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from domain.calendars.capacity import Occupied
from domain.calendars.periods import Period

HOUR = timedelta(hours=1)
FIRST = datetime(2026, 5, 1, tzinfo=UTC)
HOURS = 30


def at(hour: int) -> datetime:
    return FIRST + hour * HOUR


def hours(start: datetime, end: datetime) -> range:
    """Return the hours that a period of whole hours consists of."""
    return range((start - FIRST) // HOUR, (end - FIRST) // HOUR)


_bounds = st.tuples(st.integers(0, HOURS - 1), st.integers(1, HOURS // 2))
periods = _bounds.map(lambda bounds: Period(at(bounds[0]), at(sum(bounds))))
units = st.integers(1, 4)
occupied = st.builds(lambda period, units: Occupied(period.start, period.end, units), periods, units)
