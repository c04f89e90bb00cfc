"""Requests about one booking, or for one time, that come at once: one of them counts, and the answers say which."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, update

from domain import reservations
from domain.calendars.table import occupancies
from domain.fulfilment import load_routes
from domain.reservations.table import reservations as table
from domain.runtime.settings import Settings
from tests.api.bookings.conftest import BOOKINGS, VENUE, book, made
from tests.support.builders import Db, routes_of, with_routes
from tests.support.invariants import violations

#: How often each race is run.
RACES = 8

#: Each hold ends this much later after its race has begun than the one before it: some before the decision.
LATER = timedelta(milliseconds=0.5)


def at_once(*acts: Callable[[], httpx.Response]) -> Sequence[httpx.Response]:
    """Act at the same time. Return the answers in the order of the acts."""
    start = Barrier(len(acts))

    def act(one: Callable[[], httpx.Response]) -> httpx.Response:
        start.wait()
        return one()

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(act, acts))


def test_of_two_updates_on_one_version_one_counts(venue: httpx.Client) -> None:
    for number in range(RACES):
        booking = made(venue, booking_date=f"2030-06-{number + 1:02}")
        at = f"{BOOKINGS}/{booking['id']}"

        answers = at_once(
            lambda at=at: venue.put(at, json={"expected_version": 1, "party_size": 5}),  # type: ignore[misc]
            lambda at=at: venue.put(at, json={"expected_version": 1, "duration_minutes": 60}),  # type: ignore[misc]
        )

        seen = venue.get(at).json()
        counted = [answer for answer in answers if answer.is_success]
        assert [answer.json()["type"] for answer in answers if answer.is_error] == ["/problems/stale-version"]
        assert [seen[name] for name in ("version", "party_size", "duration_minutes")] == [
            counted[0].json()[name] for name in ("version", "party_size", "duration_minutes")
        ]
        assert (seen["version"], seen["party_size"] == 5) == (2, seen["duration_minutes"] == 120)


def test_ten_identical_posts_with_one_key_make_one_booking(venue: httpx.Client) -> None:
    answers = at_once(*[lambda: book(venue, idempotency_key="order-7")] * 10)

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert len(venue.get(f"{BOOKINGS}/venue/{VENUE}").json()["bookings"]) == 1


def test_of_ten_identical_posts_without_a_key_those_are_accepted_for_whom_there_is_room(venue: httpx.Client) -> None:
    answers = at_once(*[lambda: book(venue, party_size=6)] * 10)

    # There are twenty covers.
    assert Counter(answer.status_code for answer in answers) == {201: 3, 409: 7}
    assert len({answer.json()["booking_reference"] for answer in answers if answer.is_success}) == 3


@pytest.mark.parametrize("operation", ["confirm", "cancel"])
def test_a_decision_against_the_expiry_of_its_hold(
    venue: httpx.Client, db: Db, settings: Settings, operation: str
) -> None:
    """Whatever comes first counts, and the other one finds it so."""
    # The API has routes of its own.
    with_routes(db, load_routes(settings))
    ended = Counter[str]()
    for number in range(3 * RACES):
        booking = made(venue, booking_date=f"2030-07-{number + 1:02}")
        at = f"{BOOKINGS}/{booking['id']}"
        body = {"status": "CONFIRMED" if operation == "confirm" else "CANCELLED"}
        end_after(number * LATER, db, UUID(booking["id"]))

        with ThreadPoolExecutor(1) as maintenance:
            expiring = maintenance.submit(expire, db, UUID(booking["id"]))
            answer = venue.post(f"{at}/status", json=body)
            expiring.result()

        status = venue.get(at).json()["status"]
        assert status == (body["status"] if answer.is_success else "EXPIRED"), answer.text
        assert answer.is_success or answer.json()["type"] == "/problems/hold-expired"
        free = book(venue, booking_date=booking["booking_date"], party_size=20)
        assert free.status_code == (409 if status == "CONFIRMED" else 201)
        ended[status] += 1
    assert violations(db) == {}
    print(dict(ended))


def end_after(time: timedelta, db: Db, booking_id: UUID) -> None:
    """Have the hold of a booking end after this time."""
    end = func.clock_timestamp() + time
    with db.begin() as session:
        session.execute(update(occupancies).where(occupancies.c.reservation_id == booking_id).values(held_until=end))
        session.execute(update(table).where(table.c.id == booking_id).values(expires_at=end))


def expire(db: Db, booking_id: UUID) -> None:
    """Run maintenance until the booking is no hold any more."""
    while True:
        with db.begin() as session:
            reservations.expire(session, 10, routes_of(db))
        with db.begin() as session:
            if reservations.get(session, booking_id).status != "PENDING":
                return
