"""Replaying real bookings on calendars, as an import does: in sets, in the order in which they were made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session, sessionmaker

from domain import calendars, reservations
from domain.calendars import Period
from domain.idempotency import Answered
from domain.outbox import Routes
from domain.reservations import Change, Claim, Reserve
from domain.reservations.lifecycle import Status
from domain.runtime.errors import NotFree
from tests.support.hotel.bookings import CANCELLED, CHECKED_OUT, NO_SHOW, Booking, Rooms, steps

#: What an import hands over at once.
SET_SIZE = 256

#: Both hotels are in Portugal.
ZONE = "Europe/Lisbon"

#: A room is taken from the one time until the other one, and between the two by guests who stay for no night.
CHECK_IN, CHECK_OUT = time(15), time(12)

STATUSES = {CANCELLED: Status.CANCELLED, NO_SHOW: Status.NO_SHOW, CHECKED_OUT: Status.COMPLETED}


@dataclass
class Replay:
    """Calendars with these capacities, and what became of the bookings, by their numbers."""

    db: sessionmaker[Session]
    routes: Routes
    capacities: Mapping[Rooms, int]
    made: dict[int, UUID] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

    def open(self) -> None:
        """Create the calendars."""
        with self.db.begin() as session:
            for rooms, capacity in self.capacities.items():
                settings = calendars.Settings(capacity=capacity, time_zone=ZONE)
                calendars.create(session, sku=rooms, name=rooms, settings=settings)

    def run(self, bookings: Sequence[Booking]) -> None:
        """Make all bookings, and end them."""
        for made, ended in steps(bookings, SET_SIZE):
            self.reserve(made)
            self.end([one for one in ended if one.number in self.made])

    def reserve(self, bookings: Sequence[Booking]) -> None:
        with self.db.begin() as session:
            outcomes = reservations.reserve(session, [_request(one) for one in bookings], self.routes)
        for one, outcome in zip(bookings, outcomes, strict=True):
            if isinstance(outcome, Answered):
                self.made[one.number] = UUID(outcome.text)
            else:
                assert isinstance(outcome, NotFree), outcome
                self.refused.add(one.number)

    def end(self, bookings: Sequence[Booking]) -> None:
        """Let bookings end as they did."""
        to = {self.made[one.number]: STATUSES[one.ended_as] for one in bookings}
        with self.db.begin() as session:
            changes = [Change(of=one, to=to[one.id]) for one in reservations.lock(session, list(to))]
            for outcome in reservations.transition(session, changes, self.routes):
                assert isinstance(outcome, reservations.Reservation), outcome


def _request(one: Booking) -> Reserve:
    return Reserve(
        lines=(Claim(one.rooms, 1, period(one)),),
        hold_for=None,
        status=Status.CONFIRMED,
        made_at=_at(one.made_on, time()),
        client_id="hotel",
        external_reference=str(one.number),
        source="import",
        render=lambda made: str(made.id),
    )


def period(one: Booking) -> Period:
    """Return when a booking takes its room. Nights are dates, whatever the clock does in them."""
    if one.nights == 0:
        return Period(_at(one.arrival, CHECK_OUT), _at(one.arrival, CHECK_IN))
    return Period(_at(one.arrival, CHECK_IN), _at(one.arrival + timedelta(days=one.nights), CHECK_OUT))


def _at(day: date, hour: time) -> datetime:
    return datetime.combine(day, hour, ZoneInfo(ZONE))
