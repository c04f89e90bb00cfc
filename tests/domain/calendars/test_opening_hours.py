"""Opening hours: wall time, in whatever zone and on whatever day, beside a model that watches a clock."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.calendars.opening_hours import DAYS, MAX_EXCEPTIONS, OpeningHours, Span, parse
from domain.calendars.periods import Period
from domain.calendars.zones import wall_time, zone_of
from domain.runtime.errors import Invalid
from tests.domain.calendars.strategies import CHANGES, MINUTE, Change
from tests.support.hypothesis_settings import EXAMPLES

DAY = timedelta(days=1)

#: The model watches the clock from so many days before a change until so many days after it.
WATCHED_DAYS = 4


@cache
def clock(change: Change) -> tuple[datetime, Sequence[datetime]]:
    """Return when the watch begins, and for each minute of it the latest time that the clock has shown by then."""
    zone, begin = zone_of(change[0]), (change[1] - WATCHED_DAYS * DAY).replace(tzinfo=UTC)
    shown = [wall_time(begin, zone)]
    for minute in range(1, 2 * WATCHED_DAYS * 24 * 60):
        shown.append(max(shown[-1], wall_time(begin + minute * MINUTE, zone)))
    return begin, shown


def is_open_at(hours: OpeningHours, shown: datetime) -> bool:
    """The model: a span has begun if the clock has shown its start, and is over if the clock has shown its end."""
    for day in (shown.date() - DAY, shown.date()):
        minutes = (shown - datetime.combine(day, datetime.min.time())) // MINUTE
        spans = hours.exceptions[day] if day in hours.exceptions else hours.week[day.weekday()]
        if any(span.start <= minutes < span.end for span in spans):
            return True
    return False


@st.composite
def day_hours(draw: st.DrawFn) -> list[str]:
    """One day: what lies between every second pair of some times, and maybe a span past midnight."""
    times = draw(st.lists(st.integers(0, 24 * 12), unique=True, max_size=6).map(sorted))
    spans = [Span(start * 5, end * 5) for start, end in zip(times[::2], times[1::2], strict=False)]
    latest = spans[-1].end if spans else 0
    if latest < 1440 and draw(st.booleans()):
        spans.append(Span(draw(st.integers(latest, 1439)), 1440 + draw(st.integers(1, 400))))
    return [str(span) for span in spans if span.end - span.start < 1440 or span == Span(0, 1440)]


@st.composite
def weeks(draw: st.DrawFn, change: Change) -> OpeningHours:
    days: dict[str, Any] = draw(st.dictionaries(st.sampled_from(DAYS), day_hours()))
    dates = st.integers(-3, 3).map(lambda number: (change[1].date() + number * DAY).isoformat())
    days["exceptions"] = draw(st.dictionaries(dates, day_hours(), max_size=3)) | {"2030-01-01": ["09:00-10:00"]}
    return OpeningHours.of(days)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Change, OpeningHours, int, int]:
    change = draw(st.sampled_from(CHANGES))
    start = draw(st.integers(1440, 6 * 1440))
    end = start + draw(st.one_of(st.integers(1, 300), st.integers(1, 1900)))
    return change, draw(weeks(change)), start, end


@EXAMPLES
@given(case=cases())
def test_it_is_open_when_the_clock_says_so(case: tuple[Change, OpeningHours, int, int]) -> None:
    change, hours, start, end = case
    begin, shown = clock(change)
    period = Period(begin + start * MINUTE, begin + end * MINUTE)
    expected = [minute for minute in range(start, end) if is_open_at(hours, shown[minute])]

    spans = hours.open_spans(period, zone_of(change[0]))

    assert [
        minute for span in spans for minute in range((span.start - begin) // MINUTE, (span.end - begin) // MINUTE)
    ] == expected
    assert all(one.end < later.start for one, later in pairwise(spans))
    assert hours.covers(period, zone_of(change[0])) is (len(expected) == end - start)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def open_in(shape: Mapping[str, Any], zone: str, start: str, end: str) -> list[tuple[datetime, datetime]]:
    spans = OpeningHours.of(shape).open_spans(Period(at(start), at(end)), zone_of(zone))
    return [(span.start, span.end) for span in spans]


def test_a_day_whose_clock_is_put_forward_is_an_hour_shorter_and_open_throughout() -> None:
    every_day = {day: ["00:00-24:00"] for day in DAYS}

    assert open_in(every_day, "Europe/Vienna", "2026-03-28T00:00", "2026-03-31T00:00") == [
        (at("2026-03-28T00:00"), at("2026-03-31T00:00"))
    ]
    assert open_in({"sun": ["00:00-24:00"]}, "Europe/Vienna", "2026-03-28T00:00", "2026-03-31T00:00") == [
        (at("2026-03-28T23:00"), at("2026-03-29T22:00"))
    ]


def test_a_span_that_ends_when_the_clock_shows_its_end_twice_ends_at_the_first_time() -> None:
    until, since = {"sun": ["01:00-02:30"]}, {"sun": ["02:30-05:00"]}

    assert open_in(until, "Europe/Vienna", "2026-10-24T00:00", "2026-10-26T00:00") == [
        (at("2026-10-24T23:00"), at("2026-10-25T00:30"))
    ]
    assert open_in(since, "Europe/Vienna", "2026-10-24T00:00", "2026-10-26T00:00") == [
        (at("2026-10-25T00:30"), at("2026-10-25T04:00"))
    ]


def test_a_span_that_the_clock_skips_does_not_exist() -> None:
    assert open_in({"sun": ["02:10-02:50"]}, "Europe/Vienna", "2026-03-28T00:00", "2026-03-30T00:00") == []
    assert open_in({"sun": ["02:30-04:00"]}, "Europe/Vienna", "2026-03-28T00:00", "2026-03-30T00:00") == [
        (at("2026-03-29T01:00"), at("2026-03-29T02:00"))
    ]


def test_a_day_that_has_begun_is_open_although_the_clock_is_put_back_to_the_day_before() -> None:
    """In St. John's, the clock went from 00:01 on Sunday back to 23:01 on Saturday, which was 02:31 UTC."""
    sunday = {"sun": ["00:00-06:00"]}

    assert open_in(sunday, "America/St_Johns", "2010-11-07T02:00", "2010-11-07T03:00") == [
        (at("2010-11-07T02:30"), at("2010-11-07T03:00"))
    ]


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    bar = {"fri": ["22:00-02:00"], "exceptions": {"2026-05-02": []}}

    assert open_in(bar, "UTC", "2026-05-01T00:00", "2026-05-03T00:00") == [
        (at("2026-05-01T22:00"), at("2026-05-02T02:00"))
    ]
    assert open_in(bar, "UTC", "2026-05-02T01:00", "2026-05-03T00:00") == [
        (at("2026-05-02T01:00"), at("2026-05-02T02:00"))
    ]


def test_a_span_within_a_longer_one_of_the_day_before_ends_nothing() -> None:
    assert open_in({"fri": ["22:00-06:00"], "sat": ["01:00-02:00"]}, "UTC", "2026-05-01T00:00", "2026-05-03T00:00") == [
        (at("2026-05-01T22:00"), at("2026-05-02T06:00"))
    ]


def test_what_touches_is_open_throughout() -> None:
    hours = OpeningHours.of({"mon": ["09:00-12:00", "12:00-24:00"], "tue": ["00:00-03:00"]})

    assert hours.covers(Period(at("2026-05-04T09:00"), at("2026-05-05T03:00")), zone_of("UTC"))
    assert not hours.covers(Period(at("2026-05-04T09:00"), at("2026-05-05T03:01")), zone_of("UTC"))
    assert not hours.covers(Period(at("2026-05-04T08:59"), at("2026-05-04T10:00")), zone_of("UTC"))


def test_an_exception_replaces_the_hours_of_its_date() -> None:
    shape = {"mon": ["09:00-17:00"], "exceptions": {"2026-05-04": ["10:00-11:00"], "2026-05-11": []}}

    assert open_in(shape, "UTC", "2026-05-04T00:00", "2026-05-19T00:00") == [
        (at("2026-05-04T10:00"), at("2026-05-04T11:00")),
        (at("2026-05-18T09:00"), at("2026-05-18T17:00")),
    ]


def test_a_client_is_shown_the_hours_of_the_days_of_its_period() -> None:
    hours = OpeningHours.of({"sat": ["22:00-02:00"], "exceptions": {"2026-05-03": []}})

    nights = hours.by_date(Period(at("2026-05-01T23:00"), at("2026-05-03T10:00")), zone_of("Europe/Vienna"))
    months = hours.by_date(Period(at("2026-05-01T23:00"), at("2026-09-03T10:00")), zone_of("Europe/Vienna"))

    assert nights == {"2026-05-02": ["22:00-02:00"], "2026-05-03": []}
    assert len(months) == 7


def test_opening_hours_are_read_as_they_are_written() -> None:
    hours = OpeningHours.of(
        {"fri": ["22:00-02:00", "09:00-12:00"], "exceptions": {"2026-12-24": ["12:00-00:00"], "2026-12-25": []}}
    )

    assert hours.shape == {day: [] for day in DAYS} | {
        "fri": ["09:00-12:00", "22:00-02:00"],
        "exceptions": {"2026-12-24": ["12:00-24:00"], "2026-12-25": []},
    }
    assert OpeningHours.of(hours.shape) == hours
    assert parse(hours.text) == hours
    assert parse(hours.text) is parse(hours.text)
    assert {hours, parse(hours.text)} == {hours}


@pytest.mark.parametrize(
    ("shape", "field", "reason"),
    [
        (None, "opening_hours", "it must be an object"),
        ([], "opening_hours", "it must be an object"),
        ({}, "opening_hours", "it is never open"),
        ({"mon": [], "exceptions": {"2026-12-24": []}}, "opening_hours", "it is never open"),
        ({"monday": ["09:00-17:00"]}, "opening_hours", "'monday' is none of mon, tue, wed"),
        ({"x" * 1000: []}, "opening_hours", "x…"),
        ({"mon": "09:00-17:00"}, "opening_hours.mon", "it must be a list"),
        ({"mon": None}, "opening_hours.mon", "it must be a list"),
        ({"mon": ["9-17"]}, "opening_hours.mon", "'9-17' is not a span such as 09:00-17:00"),
        ({"mon": [900]}, "opening_hours.mon", "900 is not a span"),
        ({"mon": ["09:00-17:60"]}, "opening_hours.mon", "is not a span"),
        ({"mon": ["24:00-25:00"]}, "opening_hours.mon", "is not a span"),
        ({"mon": ["23:00-24:01"]}, "opening_hours.mon", "is not a span"),
        ({"mon": ["09:00-17:00 "]}, "opening_hours.mon", "is not a span"),
        ({"mon": ["09:00-17:00\n"]}, "opening_hours.mon", "is not a span"),
        ({"mon": ["٠٩:٠٠-١٧:٠٠"]}, "opening_hours.mon", "is not a span"),
        ({"mon": ["09:00-09:00"]}, "opening_hours.mon", "write 00:00-24:00 for a whole day"),
        ({"mon": ["09:00-12:00", "11:00-13:00"]}, "opening_hours.mon", "09:00-12:00 and 11:00-13:00 overlap"),
        ({"mon": ["22:00-02:00", "21:00-23:00"]}, "opening_hours.mon", "21:00-23:00 and 22:00-02:00 overlap"),
        ({"mon": ["09:00-17:00"] * 2}, "opening_hours.mon", "overlap"),
        ({"mon": ["09:00-17:00"] * 25}, "opening_hours.mon", "more than 24 spans"),
        ({"exceptions": []}, "opening_hours.exceptions", "it must be an object"),
        ({"exceptions": {"2026-02-30": []}}, "opening_hours.exceptions", "'2026-02-30' is not a date such as"),
        ({"exceptions": {"20261224": []}}, "opening_hours.exceptions", "is not a date such as"),
        ({"exceptions": {"1969-12-31": []}}, "opening_hours.exceptions", "is not a date such as"),
        ({"exceptions": {"2200-01-01": []}}, "opening_hours.exceptions", "is not a date such as"),
        ({"exceptions": {"2026-12-24": ["9-12"]}}, "opening_hours.exceptions.2026-12-24", "is not a span"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(shape: object, field: str, reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        OpeningHours.of(shape)

    assert (refused.value.field, reason in refused.value.reason) == (field, True), refused.value
    assert len(refused.value.reason) < 200


def test_there_are_not_more_exceptions_than_a_row_should_hold() -> None:
    dates = [(date(2026, 1, 1) + number * DAY).isoformat() for number in range(MAX_EXCEPTIONS + 1)]
    open_on = {day: ["09:00-17:00"] for day in dates}

    assert len(OpeningHours.of({"exceptions": dict(list(open_on.items())[1:])}).exceptions) == MAX_EXCEPTIONS
    with pytest.raises(Invalid, match="more than 400"):
        OpeningHours.of({"exceptions": open_on})
