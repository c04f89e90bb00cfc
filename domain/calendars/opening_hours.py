"""The opening hours of a calendar: on which days it is open, from when until when.

They are wall time in the time zone of the calendar. A time that the clock shows twice, or skips, means what
`domain.calendars.zones` says of it: where a clock is put back from 03:00 to 02:00, `01:00-02:30` ends at the first
02:30, and `02:30-05:00` begins there.

A span belongs to the day on which it begins. If Friday has `22:00-02:00`, and the Saturday after it is an exception on
which it is closed, it is open until 02:00 on that Saturday.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any, NamedTuple, Self
from zoneinfo import ZoneInfo

from domain.calendars.periods import EARLIEST, LATEST, Period
from domain.calendars.zones import first_moment, wall_time
from domain.runtime.errors import Invalid

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

#: One an hour.
MAX_SPANS_OF_A_DAY = 24

#: The public holidays and the closed weeks of several years.
MAX_EXCEPTIONS = 400

#: An error shows that much of what a client sent.
SHOWN_CHARACTERS = 40

#: A refusal names the hours of a week at most.
MAX_DATES_SHOWN = 7

MINUTES_OF_A_DAY = 24 * 60
ONE_DAY = timedelta(days=1)


class Span(NamedTuple):
    """From when until when it is open, in minutes of the day on which it opens. It may close on the next day."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"{_clock(self.start)}-{_clock(self.end - MINUTES_OF_A_DAY * (self.end > MINUTES_OF_A_DAY))}"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


Spans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class OpeningHours:
    """The spans of each day of the week, from Monday on, and those of single dates. `text` is all of it as JSON.

    They come from `of` and `parse` only, which check them.
    """

    text: str
    week: Sequence[Spans] = field(compare=False, repr=False)
    exceptions: Mapping[date, Spans] = field(compare=False, repr=False)

    @classmethod
    def of(cls, shape: object) -> Self:
        """Read `{"mon": ["09:00-12:00", "13:00-17:00"], "fri": ["22:00-02:00"], "exceptions": {"2026-12-24": []}}`.

        It is closed on days that are not named. Raises Invalid for `opening_hours` or a field within it.
        """
        days = _members("opening_hours", shape)
        exceptions = _exceptions("opening_hours.exceptions", days.pop("exceptions", {}))
        week = tuple(_spans(f"opening_hours.{name}", days.pop(name, [])) for name in DAYS)
        if days:
            raise Invalid("opening_hours", f"{_shown(min(days))} is none of {', '.join(DAYS)} and exceptions")
        if not any(week) and not any(exceptions.values()):
            raise Invalid("opening_hours", "it is never open; leave them out if it is always open")
        return cls(json.dumps(_shape(week, exceptions)), week, exceptions)

    @property
    def shape(self) -> dict[str, Any]:
        """The same as `of` reads, with every day of the week."""
        return _shape(self.week, self.exceptions)

    def on(self, day: date) -> Spans:
        """Return the spans that begin on a day."""
        return self.exceptions.get(day, self.week[day.weekday()])

    def covers(self, period: Period, zone: ZoneInfo) -> bool:
        """Return whether it is open throughout the period."""
        return next(self._open(period, zone), None) == (period.start, period.end)

    def open_spans(self, period: Period, zone: ZoneInfo) -> list[Period]:
        """Return when it is open within the period, in order. No two of these periods touch."""
        return [Period(start, end) for start, end in self._open(period, zone)]

    def by_date(self, period: Period, zone: ZoneInfo) -> dict[str, list[str]]:
        """Return the hours of the days on which the period lies, as a client writes them. Only a few days are shown."""
        first, last = _dates(period, zone)
        days = (first + number * ONE_DAY for number in range((last - first).days + 1))
        return {day.isoformat(): _written(self.on(day)) for day in islice(days, MAX_DATES_SHOWN)}

    def _open(self, period: Period, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
        """Yield from when until when it is open. What comes after that is not looked at before it is asked for."""
        opens = closes = period.start
        for start, end in self._within(period, zone):
            if start > closes:
                if opens < closes:
                    yield opens, closes
                opens = start
            closes = max(closes, end)
        if opens < closes:
            yield opens, closes

    def _within(self, period: Period, zone: ZoneInfo) -> Iterator[tuple[datetime, datetime]]:
        """Yield what of each span lies within the period, in order of the start.

        A day before the period and a day after it are looked at, too. The former may have a span that ends after its
        midnight. The latter has begun if the clock has already shown its date, and then was put back to the day before.
        """
        first, last = _dates(period, zone)
        for number in range(-1, (last - first).days + 2):
            for start, end in _moments(self, first + number * ONE_DAY, zone):
                if start < period.end and period.start < end:
                    yield max(period.start, start), min(period.end, end)


@lru_cache(maxsize=4_096)
def _moments(hours: OpeningHours, day: date, zone: ZoneInfo) -> Sequence[tuple[datetime, datetime]]:
    """Return when a day's spans are, in order. The same days are asked for by many requests."""
    midnight = datetime.combine(day, time())
    bounds = (
        (midnight + timedelta(minutes=span.start), midnight + timedelta(minutes=span.end))
        for span in _joined(hours.on(day))
    )
    return [(first_moment(start, zone), first_moment(end, zone)) for start, end in bounds]


def _joined(spans: Spans) -> Iterator[Span]:
    """Join spans that touch: to look at the time zone takes long, and a lock may be held meanwhile."""
    start = end = 0
    for span in spans:
        if span.start > end:
            if start < end:
                yield Span(start, end)
            start = span.start
        end = span.end
    if start < end:
        yield Span(start, end)


@lru_cache(maxsize=256)
def parse(text: str) -> OpeningHours:
    """Return the opening hours that have this text. Many items have the same, and they are read for each set."""
    return OpeningHours.of(json.loads(text))


def _dates(period: Period, zone: ZoneInfo) -> tuple[date, date]:
    return wall_time(period.start, zone).date(), wall_time(period.end, zone).date()


def _shape(week: Sequence[Spans], exceptions: Mapping[date, Spans]) -> dict[str, Any]:
    days = {name: _written(spans) for name, spans in zip(DAYS, week, strict=True)}
    return days | {"exceptions": {day.isoformat(): _written(spans) for day, spans in exceptions.items()}}


def _written(spans: Spans) -> list[str]:
    return [str(span) for span in spans]


def _members(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(name, "it must be an object")
    return {str(key): member for key, member in value.items()}


def _exceptions(name: str, value: object) -> dict[date, Spans]:
    members = _members(name, value)
    if len(members) > MAX_EXCEPTIONS:
        raise Invalid(name, f"there are more than {MAX_EXCEPTIONS}")
    return {_date(name, day): _spans(f"{name}.{day}", spans) for day, spans in sorted(members.items())}


def _date(name: str, text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if day.isoformat() != text or not EARLIEST.date() <= day < LATEST.date():
        raise Invalid(name, f"{_shown(text)} is not a date such as 2026-12-24, from 1970 to 2199")
    return day


def _spans(name: str, value: object) -> Spans:
    """Read the spans of one day, in any order."""
    if not isinstance(value, list):
        raise Invalid(name, 'it must be a list of spans, such as ["09:00-12:00", "13:00-17:00"]')
    if len(value) > MAX_SPANS_OF_A_DAY:
        raise Invalid(name, f"it has more than {MAX_SPANS_OF_A_DAY} spans")
    spans = tuple(sorted(_span(name, one) for one in value))
    for one, next_one in pairwise(spans):
        if one.end > next_one.start:
            raise Invalid(name, f"{one} and {next_one} overlap")
    return spans


_SPAN = re.compile("([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|(24):(00))")


def _span(name: str, value: object) -> Span:
    match = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise Invalid(name, f"{_shown(value)} is not a span such as 09:00-17:00, with times from 00:00 to 24:00")
    start_hour, start_minute, end_hour, end_minute = (int(part) for part in match.groups() if part)
    start, end = start_hour * 60 + start_minute, end_hour * 60 + end_minute
    if start == end:
        raise Invalid(name, f"{value} is empty; write 00:00-24:00 for a whole day")
    return Span(start, end if end > start else end + MINUTES_OF_A_DAY)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
