"""References: the names by which people know bookings, such as BR-20241225-A3B9C2."""

from datetime import datetime
from secrets import token_bytes
from zoneinfo import ZoneInfo

from domain.calendars.zones import wall_time

#: Without those that are easily taken for each other: I and 1, O and 0.
_CHARACTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def new_reference(start: datetime, zone: ZoneInfo) -> str:
    """Return a new reference: the date of the start at the venue, and six random characters.

    There are 10⁹ for each date. That none is given twice is for the database to say.
    """
    day = wall_time(start, zone)
    random = "".join(_CHARACTERS[byte % len(_CHARACTERS)] for byte in token_bytes(6))
    return f"BR-{day.year:04}{day.month:02}{day.day:02}-{random}"
