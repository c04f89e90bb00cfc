"""Time zones: from what a clock on the wall shows to instants. Everywhere else there are instants in UTC only.

A clock shows some times twice, when it is put back, and skips others, when it is put forward. One rule covers both:
a wall time stands for the first moment at which the clock shows it or, if it is skipped, a later time. So a time that
is shown twice means the first of the two, all skipped ones mean the moment at which the clock is put forward, and a
later wall time never means an earlier moment.
"""

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from domain.runtime.errors import Invalid

#: They are no places: one is whatever the machine is set to, and the other says that nobody has set it.
NOT_ZONES = frozenset({"localtime", "Factory"})


@cache
def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of that IANA name. Raises Invalid."""
    if name not in _names():
        raise Invalid("time_zone", "it must be the IANA name of a time zone, such as Europe/Vienna")
    return ZoneInfo(name)


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones()) - NOT_ZONES


def first_moment(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the first moment at which the clock shows this wall time or, if that is skipped, a later one."""
    moment = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return moment if wall_time(moment, zone) == wall else _moment_of_skipping(wall, zone)


def _moment_of_skipping(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment at which the clock is put forward beyond this wall time.

    It lies between the two readings of the time: by the offset after that moment, and by the one before it.
    """
    whole = wall.replace(tzinfo=zone, microsecond=0)
    before, after = (whole.replace(fold=fold).astimezone(UTC) for fold in (1, 0))
    seconds = range((after - before) // timedelta(seconds=1))
    place = bisect_left(seconds, True, key=lambda second: wall_time(before + timedelta(seconds=second), zone) >= wall)
    return before + timedelta(seconds=place)


def wall_time(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the date and the time that the clock shows at a moment, as a datetime without a zone."""
    return moment.astimezone(zone).replace(tzinfo=None)


def moved_by_days(moment: datetime, days: int, zone: ZoneInfo) -> datetime:
    """Return the moment at which the clock shows the same time on another day."""
    return first_moment(wall_time(moment, zone) + timedelta(days=days), zone)
