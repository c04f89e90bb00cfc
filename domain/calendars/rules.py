"""What the settings of a calendar say about a period: when it is open, and what lies between two reservations."""

from datetime import timedelta
from zoneinfo import ZoneInfo

from domain.calendars.opening_hours import parse
from domain.calendars.periods import Period
from domain.calendars.zones import zone_of
from domain.items import Item


def blocked(item: Item, period: Period) -> Period:
    """Return what a reservation of that period blocks on a calendar, with the buffers."""
    return period.widened(*buffers(item))


def buffers(item: Item) -> tuple[timedelta, timedelta]:
    """Return how long nobody else can use a calendar before a reservation, and after it."""
    assert item.buffer_before_seconds is not None and item.buffer_after_seconds is not None, "it is a calendar"
    return timedelta(seconds=item.buffer_before_seconds), timedelta(seconds=item.buffer_after_seconds)


def is_open(item: Item, period: Period) -> bool:
    """Return whether a calendar is open throughout the period. Buffers may lie outside its opening hours."""
    return item.opening_hours is None or parse(item.opening_hours).covers(period, zone(item))


def open_spans(item: Item, period: Period) -> list[Period]:
    """Return when a calendar is open within the period, in order. No two of these periods touch."""
    return [period] if item.opening_hours is None else parse(item.opening_hours).open_spans(period, zone(item))


def zone(item: Item) -> ZoneInfo:
    """Return the time zone of a calendar."""
    assert item.time_zone is not None, "it is a calendar"
    return zone_of(item.time_zone)
