"""The time that reservations take of calendars."""

from collections.abc import Sequence

from domain.calendars.occupancies import Taken
from domain.items import Item
from domain.reservations.table import Reservation


def taken_by(made: Reservation, of: Sequence[Item]) -> Sequence[Taken]:
    """Return the time that a reservation takes of these items, which are those of its lines."""
    period = made.period
    if period is None:
        return ()
    numbered = enumerate(zip(made.lines, of, strict=True), start=1)
    return [Taken(made.id, place, item, line.quantity, period, made.held_until) for place, (line, item) in numbered]
