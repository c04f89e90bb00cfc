"""When a booking is: a date and a time on the clock of its venue, and a duration."""

from datetime import date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from domain.calendars import Period
from domain.calendars.periods import EARLIEST, LATEST
from domain.calendars.zones import first_moment, wall_time
from domain.runtime.errors import Invalid


class Placed(NamedTuple):
    """The period of a booking and, if the clock of the venue skips the time that was asked for, that time."""

    period: Period
    moved_from: time | None


def placed(day: date, at: time, duration_minutes: int, zone: ZoneInfo) -> Placed:
    """Return when a booking is. Raises Invalid.

    A time that the clock shows twice on that day is the first of the two. One that it skips is the moment at which the
    clock is put forward. The duration is real time, so that it may end at another time than the clocks suggest.
    """
    if not EARLIEST.year < day.year < LATEST.year:
        raise Invalid("booking_date", f"it must be from {EARLIEST.year + 1} to {LATEST.year - 1}")
    wall = datetime.combine(day, at)
    start = first_moment(wall, zone)
    period = Period(start, start + timedelta(minutes=duration_minutes))
    return Placed(period, None if wall_time(start, zone) == wall else at)


def shown(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return what the clock of the venue shows at a moment."""
    return wall_time(moment, zone)
