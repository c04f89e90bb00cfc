"""Calendars: items of which time is reserved."""

from domain.calendars.settings import MAX_BUFFER_SECONDS, Settings, amend, create
from domain.calendars.periods import Period

__all__ = ["MAX_BUFFER_SECONDS", "Period", "Settings", "amend", "create"]
