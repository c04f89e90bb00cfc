"""The model of calendars: what is in use of them, counted minute by minute."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from hypothesis import strategies as st

from domain.calendars import Period
from domain.reservations.lifecycle import Status
from tests.support.builders import FRIDAY

CALENDARS = 2

MAY = {
    Status.PENDING: {Status.CONFIRMED, Status.CANCELLED, Status.REJECTED},
    Status.CONFIRMED: {Status.CHECKED_IN, Status.COMPLETED, Status.CANCELLED, Status.NO_SHOW},
    Status.CHECKED_IN: {Status.COMPLETED, Status.CANCELLED},
    Status.BLOCKED: {Status.CANCELLED},
}
ASKED = [Status.CONFIRMED, Status.CANCELLED, Status.REJECTED, Status.CHECKED_IN, Status.COMPLETED, Status.NO_SHOW]
FREE = {Status.CANCELLED, Status.REJECTED, Status.EXPIRED}

#: What reservations begin with: most of them are holds.
FIRST = [*[Status.PENDING] * 5, Status.CONFIRMED, Status.BLOCKED]

#: For how long holds last: for a time that passes, for longer, or without end.
SHORT = timedelta(minutes=15)
LASTING = [SHORT, SHORT, timedelta(hours=2), None]

MINUTE = timedelta(minutes=1)

#: Minutes, counted from a midnight: from the first one until just before the last one.
Minutes = range

#: All minutes that a reservation may block, with buffers of up to 3 minutes.
EVERY_MINUTE = range(-3, 30)

#: Few minutes, so that much overlaps, nests and touches.
minutes = st.builds(lambda start, length: range(start, start + length), st.integers(0, 14), st.integers(1, 10))

#: The quantity of each calendar of a reservation, by the place of the calendar, in the order of its lines.
Wanted = dict[int, int]

quantities = st.sampled_from([1, 1, 1, 1, 1, 1, 2, 2, 3])
wanted = st.dictionaries(st.integers(0, CALENDARS - 1), quantities, min_size=1)


@dataclass(frozen=True)
class Asked:
    """A request for a reservation."""

    wanted: Wanted
    during: Minutes
    status: Status
    hold_for: timedelta | None


asked = st.builds(Asked, wanted, minutes, st.sampled_from(FIRST), st.sampled_from(LASTING))


@dataclass
class ModelCalendar:
    """A calendar in the model. The buffers are in minutes."""

    capacity: int
    before: int
    after: int

    def blocked(self, during: Minutes) -> Minutes:
        return range(during.start - self.before, during.stop + self.after)


model_calendars = st.builds(ModelCalendar, st.sampled_from([1, 1, 2, 3, 4]), st.integers(0, 3), st.integers(0, 3))


@dataclass
class ModelReservation:
    """A reservation in the model, and the minutes that it blocks of each of its calendars."""

    wanted: Wanted
    during: Minutes
    blocked: dict[int, Minutes]
    status: Status
    is_short: bool
    is_overdue: bool = False

    def is_lapsed(self) -> bool:
        return self.is_overdue and self.status is Status.PENDING

    def uses(self, place: int, minute: int) -> int:
        """Return how many units of a calendar it takes in that minute."""
        takes = self.status not in FREE and place in self.wanted and minute in self.blocked[place]
        return self.wanted[place] if takes else 0

    def contains(self, wanted: Wanted, during: Minutes) -> bool:
        """Return whether it has all that is wanted."""
        is_within = self.during.start <= during.start and during.stop <= self.during.stop
        return is_within and all(quantity <= self.wanted[place] for place, quantity in wanted.items())

    def shorten(self, wanted: Wanted, during: Minutes) -> None:
        """Give the rest back, and keep the buffers."""
        later, earlier = during.start - self.during.start, self.during.stop - during.stop
        self.wanted, self.during = wanted, during
        self.blocked = {place: range(one.start + later, one.stop - earlier) for place, one in self.blocked.items()}


def period(during: Minutes) -> Period:
    return Period(FRIDAY + during.start * MINUTE, FRIDAY + during.stop * MINUTE)


def overlap(one: Minutes, other: Minutes) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)


@dataclass
class Model:
    """Calendars and their reservations."""

    calendars: list[ModelCalendar] = field(default_factory=list)
    reservations: dict[UUID, ModelReservation] = field(default_factory=dict)

    def add(self, key: UUID, made: Asked) -> UUID:
        blocked, is_short = self.blocked(made.wanted, made.during), made.hold_for is SHORT
        self.reservations[key] = ModelReservation(made.wanted, made.during, blocked, made.status, is_short)
        return key

    def used(self, place: int) -> Iterator[int]:
        """Yield how many units of a calendar are in use, minute by minute."""
        for minute in EVERY_MINUTE:
            yield sum(one.uses(place, minute) for one in self.reservations.values())

    def free(
        self, place: int, during: Minutes, besides: ModelReservation | None = None, without_lapsed: bool = False
    ) -> int:
        """Return how many units of a calendar are free in every minute that such a reservation would block."""
        others = [
            one for one in self.reservations.values() if one is not besides and not (without_lapsed and one.is_lapsed())
        ]
        calendar = self.calendars[place]
        used = (sum(one.uses(place, minute) for one in others) for minute in calendar.blocked(during))
        return calendar.capacity - max(used)

    def too_small(
        self, wanted: Wanted, during: Minutes, besides: ModelReservation | None = None, without_lapsed: bool = False
    ) -> int | None:
        """Return the place of the first calendar of which too few units are free, or None if everything fits."""
        short = (
            place for place, quantity in wanted.items() if quantity > self.free(place, during, besides, without_lapsed)
        )
        return next(short, None)

    def blocked(self, wanted: Wanted, during: Minutes) -> dict[int, Minutes]:
        return {place: self.calendars[place].blocked(during) for place in wanted}

    def is_in_the_way(self, one: ModelReservation, wanted: Wanted, during: Minutes) -> bool:
        """Return whether a reservation blocked a minute that such another one would block."""
        return any(
            overlap(one.blocked[place], self.calendars[place].blocked(during))
            for place in wanted.keys() & one.wanted.keys()
        )
