"""Wall time: what a clock skips, what it shows twice, and whole days that have 23, 23.5, 24.5 or 25 hours."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.calendars.zones import first_moment, moved_by_days, wall_time, zone_of
from domain.runtime.errors import Invalid
from tests.domain.calendars.strategies import CHANGES, MINUTE, Change
from tests.support.hypothesis_settings import EXAMPLES


@EXAMPLES
@given(change=st.sampled_from(CHANGES), minutes=st.integers(-1600, 1600))
def test_a_wall_time_is_the_first_moment_at_which_the_clock_shows_that_much(change: Change, minutes: int) -> None:
    zone, wall = zone_of(change[0]), change[1] + minutes * MINUTE

    moment = first_moment(wall, zone)

    assert wall_time(moment, zone) >= wall
    for earlier in range(1, 180):
        assert wall_time(moment - earlier * MINUTE, zone) < wall


@pytest.mark.parametrize(
    ("name", "wall", "moment"),
    [
        # Skipped: 01:00 UTC is when the clock goes from 02:00 to 03:00.
        ("Europe/Vienna", "2026-03-29T01:59", "2026-03-29T00:59"),
        ("Europe/Vienna", "2026-03-29T02:00", "2026-03-29T01:00"),
        ("Europe/Vienna", "2026-03-29T02:30:00.000001", "2026-03-29T01:00"),
        ("Europe/Vienna", "2026-03-29T03:00", "2026-03-29T01:00"),
        # Shown twice: at 00:30 UTC and at 01:30 UTC.
        ("Europe/Vienna", "2026-10-25T02:30", "2026-10-25T00:30"),
        ("Europe/Vienna", "2026-10-25T03:00", "2026-10-25T02:00"),
        ("Asia/Kolkata", "2026-03-29T02:30", "2026-03-28T21:00"),
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30"),
        ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45"),
        ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00"),
    ],
)
def test_wall_times_in_utc(name: str, wall: str, moment: str) -> None:
    expected = datetime.fromisoformat(moment).replace(tzinfo=UTC)

    assert first_moment(datetime.fromisoformat(wall), zone_of(name)) == expected


def test_a_moment_moved_by_days_keeps_its_wall_time() -> None:
    vienna = zone_of("Europe/Vienna")
    noon = datetime(2026, 3, 28, 11, tzinfo=UTC)

    assert moved_by_days(noon, 1, vienna) == noon + timedelta(hours=23)
    assert moved_by_days(moved_by_days(noon, 1, vienna), -1, vienna) == noon
    assert moved_by_days(noon, 0, vienna) == noon


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Europe",
        "europe/vienna",
        "Europe/Vienna ",
        "../UTC",
        "/etc/localtime",
        "right/UTC",
        "posix/UTC",
        "localtime",
        "Factory",
        "a\0b",
        "x" * 65,
        "x' OR '1'='1",
        "+02:00",
    ],
)
def test_what_is_no_iana_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        zone_of(name)

    assert refused.value.field == "time_zone"


@pytest.mark.parametrize("name", ["Europe/Vienna", "Asia/Kolkata", "Australia/Lord_Howe", "UTC", "Etc/GMT+5"])
def test_an_iana_name_is_a_zone(name: str) -> None:
    assert zone_of(name).key == name
    assert zone_of(name) is zone_of(name)
