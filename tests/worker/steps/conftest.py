"""Bookings whose steps are taken by services over real connections, in this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from domain import bookings, reservations
from domain.bookings import Booking, NewBooking
from domain.bookings.saga import Step
from domain.calendars import Period
from domain.fulfilment import STEP_TYPES, load_routes
from domain.items import Item
from domain.outbox import Route, Routes
from domain.outbox.table import outbox as outbox_rows
from domain.reservations import Change, Reschedule, Reservation
from domain.reservations.lifecycle import Status
from tests.support.builders import Db, a_calendar, a_time_hold, hours, let_lapse, routes_of, some_settings, with_routes
from tests.support.outbox import a_relay, time_passes
from tests.support.partner_services import PartnerServices, partner_services
from worker.destinations import open_step
from worker.ordering.pace import Pace
from worker.relay.relay import Relay

VENUE = "vela"

#: A call that hangs is given up after this time.
TIMEOUT_SECONDS = 0.3

MAX_ATTEMPTS = 3

STEPS = tuple(Step)


@pytest.fixture
def services() -> Iterator[PartnerServices]:
    with partner_services() as services:
        yield services


@dataclass
class Harness:
    """A venue with a list price, whose bookings need these services."""

    relay: Relay
    services: PartnerServices
    calendar: Item

    @property
    def db(self) -> Db:
        return self.relay.db

    def book(self, party_size: int = 2, **fields: Any) -> UUID:
        """Make a booking, and return its id."""
        asked = NewBooking(venue=VENUE, time_zone="Europe/Rome")
        return a_time_hold(self.db, self.calendar, hours(18, 20), party_size, booking=asked, **fields).id

    def run(self, runs: int = 12) -> None:
        """Deliver until nothing is left to do, skipping all pauses."""
        for _ in range(runs):
            self.relay.run_side_by_side()
            time_passes(self.db)

    def change(self, booking_id: UUID, to: Status) -> None:
        """Change the status, as somebody does over the API."""
        with self.db.begin() as session:
            (one,) = reservations.lock(session, [booking_id])
            reservations.transition(session, [Change(of=one, to=to, reason="because")], routes_of(self.db))

    def reschedule(self, booking_id: UUID, *, quantity: int | None = None, period: Period | None = None) -> None:
        """Give a booking another time or party, as somebody does over the API."""
        wanted = Reschedule(period, quantity)
        with self.db.begin() as session:
            changed = reservations.change(session, booking_id, wanted, routes=routes_of(self.db))
        assert isinstance(changed, Reservation), changed

    def lapse(self, booking_id: UUID) -> None:
        let_lapse(self.db, booking_id)

    def expire(self) -> None:
        """Have maintenance expire what has lapsed."""
        with self.db.begin() as session:
            reservations.expire(session, 100, routes_of(self.db))

    def reservation(self, booking_id: UUID) -> Reservation:
        with self.db.begin() as session:
            return reservations.get(session, booking_id)

    def booking(self, booking_id: UUID) -> Booking:
        with self.db.begin() as session:
            return bookings.read(session, [booking_id])[booking_id]

    def status(self, booking_id: UUID) -> tuple[Status, str | None]:
        one = self.reservation(booking_id)
        return one.status, one.cancellation_reason

    def states(self) -> dict[str, list[str]]:
        """Return by the type of the event whether its rows are processed, dead or pending."""
        found: dict[str, list[str]] = {}
        with self.db.begin() as session:
            for row in session.execute(select(outbox_rows).order_by(outbox_rows.c.id)):
                state = "processed" if row.processed_at else "dead" if row.dead_at else "pending"
                found.setdefault(row.type, []).append(state)
        return found


OpenHarness = Callable[..., Harness]


@pytest.fixture
def a_harness(db: Db, services: PartnerServices) -> Iterator[OpenHarness]:
    """Opens harnesses whose bookings need these steps; all of them, if none is named."""
    opened: list[Relay] = []

    def open_harness(*steps: Step, list_price: str | None = "25.00", max_attempts: int = MAX_ATTEMPTS) -> Harness:
        settings = some_settings(
            step_timeout_seconds=TIMEOUT_SECONDS,
            confirmation_timeout_seconds=TIMEOUT_SECONDS,
            **{f"{step}_url": services.url(step) for step in steps or STEPS},
        )
        found = [
            step.model_copy(update={"max_attempts": max_attempts, "concurrency": 2})
            for step in load_routes(settings).steps
        ]
        routes = Routes([Route(name="events", url="null:", events=("booking.*",))], found, STEP_TYPES)
        here = with_routes(db, routes)
        destinations = {one.name: open_step(one, settings, here, routes, Pace(Event())) for one in found}
        relay = a_relay(here, {one.name: one for one in found}, destinations)
        opened.append(relay)
        price = {} if list_price is None else {"price_amount": list_price, "price_currency": "EUR", "price_per": "unit"}
        calendar = a_calendar(db, 400, time_zone="Europe/Rome", venue=VENUE, price=price)
        return Harness(relay, services, calendar)

    yield open_harness
    for relay in opened:
        relay.close(grace_seconds=0)
