"""Classes of durations, by which reservations of time are indexed.

Whatever overlaps a window began before it by no more than its own duration. So within a class of similar durations, an
index in order of the start finds what overlaps, and passes over little else.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Integer, func, literal_column

from domain.calendars.periods import MAX_PERIOD

#: The longest duration of each class but the last, in hours and up to a second more: each is four times as long as the
#: one before.
LONGEST_HOURS = (1, 4, 16, 64, 256, 1024, 4096)

#: The last class has everything up to the longest period.
CLASSES = range(len(LONGEST_HOURS) + 1)


def class_of(starts_at: ColumnElement[datetime | None], ends_at: ColumnElement[datetime | None]) -> ColumnElement[Any]:
    """Return the class of the durations of rows. PostgreSQL computes it when it writes the index."""
    seconds: ColumnElement[Any] = literal_column(
        f"ARRAY[{', '.join(f'{hours * 3600 + 1}' for hours in LONGEST_HOURS)}]::numeric[]"
    )
    return func.width_bucket(func.extract("epoch", ends_at - starts_at), seconds, type_=Integer)


def longest(number: int) -> timedelta:
    """Return the longest duration of a class."""
    return timedelta(hours=LONGEST_HOURS[number], seconds=1) if number < len(LONGEST_HOURS) else MAX_PERIOD
