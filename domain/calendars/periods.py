"""Periods: from one instant until just before another, in UTC."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from domain.runtime.errors import Invalid

#: Two years, of which one is a leap year. A longer period is a mistyped year.
MAX_PERIOD = timedelta(days=731)

#: An instant beyond these is mistyped, or a placeholder such as the year 9999. Between them, no zone's offset and no
#: buffer leads to an instant that a datetime can't hold.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open period: `start` belongs to it and `end` does not, so two periods that touch do not overlap.

    Both are instants with an offset when they are given, and in UTC ever after. Raises Invalid for one of them.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        start, end = _in_utc("start", self.start), _in_utc("end", self.end)
        if start >= end:
            raise Invalid("end", "it must be later than start")
        if end - start > MAX_PERIOD:
            raise Invalid("end", f"it must be at most {MAX_PERIOD.days} days after start")
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "end", end)

    @property
    def duration(self) -> timedelta:
        return self.end - self.start

    def contains(self, other: "Period") -> bool:
        """Return whether the other one lies within this one."""
        return self.start <= other.start and other.end <= self.end

    def widened(self, before: timedelta, after: timedelta) -> Self:
        """Return this period with a buffer before it and one after it, by which it may exceed the limits."""
        wider = object.__new__(type(self))
        object.__setattr__(wider, "start", self.start - before)
        object.__setattr__(wider, "end", self.end + after)
        return wider


def _in_utc(field: str, instant: datetime) -> datetime:
    if instant.utcoffset() is None:
        raise Invalid(field, "it needs a UTC offset, such as 2030-01-31T12:00:00Z")
    # Compared before it is converted: near the years 1 and 9999 the conversion itself would fail.
    if not EARLIEST <= instant <= LATEST:
        raise Invalid(field, f"it must be from {EARLIEST:%Y-%m-%d} to {LATEST:%Y-%m-%d}, in UTC")
    return instant if instant.tzinfo is UTC else instant.astimezone(UTC)
