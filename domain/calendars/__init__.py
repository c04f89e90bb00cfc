"""Calendars: items with a number of units that are free or taken for periods of time."""
