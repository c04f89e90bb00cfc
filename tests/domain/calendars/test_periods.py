"""Periods are born valid, in UTC, and half-open."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.calendars.periods import EARLIEST, LATEST, MAX_PERIOD, Period
from domain.runtime.errors import Invalid
from tests.support.hypothesis_settings import EXAMPLES

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)

instants = st.datetimes(EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None), timezones=st.just(UTC))
short_periods = st.builds(
    lambda start, length: Period(NOON + start * HOUR, NOON + (start + length) * HOUR),
    st.integers(0, 9),
    st.integers(1, 5),
)


def test_a_period_is_in_utc_whatever_offset_it_was_given_with() -> None:
    period = Period(
        datetime(2026, 5, 1, 14, tzinfo=ZoneInfo("Europe/Vienna")),
        datetime(2026, 5, 1, 18, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    )

    assert period == Period(NOON, NOON + HOUR)
    assert (period.start.tzinfo, period.end.tzinfo) == (UTC, UTC)
    assert period.duration == HOUR


@EXAMPLES
@given(start=instants, duration=st.timedeltas(MICROSECOND, MAX_PERIOD))
def test_every_period_within_the_limits_is_valid(start: datetime, duration: timedelta) -> None:
    assume(start + duration <= LATEST)

    assert Period(start, start + duration).duration == duration


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (NOON.replace(tzinfo=None), NOON, "start"),
        (NOON, (NOON + HOUR).replace(tzinfo=None), "end"),
        (NOON, NOON, "end"),
        (NOON, NOON - MICROSECOND, "end"),
        (NOON, NOON + MAX_PERIOD + MICROSECOND, "end"),
        (EARLIEST - MICROSECOND, EARLIEST + HOUR, "start"),
        (LATEST - HOUR, LATEST + MICROSECOND, "end"),
        (LATEST + HOUR, LATEST + 2 * HOUR, "start"),
        (datetime.min.replace(tzinfo=timezone(HOUR)), NOON, "start"),
        (NOON, datetime.max.replace(tzinfo=timezone(-HOUR)), "end"),
    ],
)
def test_a_period_that_is_not_valid_names_the_field(start: datetime, end: datetime, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        Period(start, end)

    assert refused.value.field == field


class NoOffset(tzinfo):
    """A time zone that does not know its offset: its datetimes are naive, although they have a zone."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    dst = utcoffset

    def tzname(self, _: datetime | None) -> None:
        return None


def test_an_instant_whose_zone_knows_no_offset_is_naive() -> None:
    with pytest.raises(Invalid) as refused:
        Period(NOON.replace(tzinfo=NoOffset()), NOON + HOUR)

    assert refused.value.field == "start"


@EXAMPLES
@given(first=short_periods, second=short_periods)
def test_a_period_contains_another_one_if_it_has_all_its_hours(first: Period, second: Period) -> None:
    assert first.contains(second) is (hours(first) >= hours(second))


def hours(period: Period) -> set[datetime]:
    return {period.start + number * HOUR for number in range(period.duration // HOUR)}


def test_buffers_widen_even_the_longest_and_the_earliest_period() -> None:
    wider = Period(EARLIEST, EARLIEST + MAX_PERIOD).widened(HOUR, 2 * HOUR)

    assert (wider.start, wider.end) == (EARLIEST - HOUR, EARLIEST + MAX_PERIOD + 2 * HOUR)
    assert isinstance(wider, Period)
