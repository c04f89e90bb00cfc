"""What hypothesis makes calendars of: hours of a few days, so that much overlaps, touches and nests."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from domain.calendars.capacity import Occupied
from domain.calendars.periods import Period

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
FIRST = datetime(2026, 5, 1, tzinfo=UTC)
HOURS = 30


def at(hour: int) -> datetime:
    return FIRST + hour * HOUR


def hours(start: datetime, end: datetime) -> range:
    """Return the hours that a period of whole hours consists of."""
    return range((start - FIRST) // HOUR, (end - FIRST) // HOUR)


def lasting(shortest: int, longest: int) -> st.SearchStrategy[Period]:
    """Periods of so many hours."""
    bounds = st.tuples(st.integers(0, HOURS - 1), st.integers(shortest, longest))
    return bounds.map(lambda bounds: Period(at(bounds[0]), at(sum(bounds))))


periods = lasting(1, HOURS // 2)
units = st.integers(1, 4)
occupied = st.builds(lambda period, units: Occupied(period.start, period.end, units), periods, units)

#: A zone, and a wall time beside which its clock is put forward or back.
Change = tuple[str, datetime]

CHANGES: list[Change] = [
    (zone, datetime.fromisoformat(wall))
    for zone, wall in [
        ("Europe/Vienna", "2026-03-29T02:00"),
        ("Europe/Vienna", "2026-10-25T03:00"),
        ("Australia/Adelaide", "2026-04-05T03:00"),
        ("Australia/Adelaide", "2026-10-04T02:00"),
        # By half an hour.
        ("Australia/Lord_Howe", "2026-04-05T02:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:00"),
        # The day begins at 01:00.
        ("Africa/Cairo", "2026-04-24T00:00"),
        # The day has its first hour twice.
        ("America/Havana", "2026-11-01T01:00"),
        # The day before has its last hour twice.
        ("America/Sao_Paulo", "2018-02-18T00:00"),
        # From one minute past midnight, the date goes back.
        ("America/St_Johns", "2010-11-07T00:01"),
        # The day did not exist.
        ("Pacific/Apia", "2011-12-30T00:00"),
        # The clock is never changed.
        ("Asia/Kolkata", "2026-03-29T02:00"),
        ("UTC", "2026-03-29T02:00"),
    ]
]
