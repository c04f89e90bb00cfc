"""Calendars: items of which time is reserved."""

from domain.calendars.availability import MAX_WINDOW, Availability, Snapshot, Starts, snapshot
from domain.calendars.explain import Explanation, explain
from domain.calendars.periods import Period
from domain.calendars.settings import MAX_BUFFER_SECONDS, Settings, amend, create

__all__ = [
    "MAX_BUFFER_SECONDS",
    "MAX_WINDOW",
    "Availability",
    "Explanation",
    "Period",
    "Settings",
    "Snapshot",
    "Starts",
    "amend",
    "create",
    "explain",
    "snapshot",
]
