"""Bookings: whose they are, and who may read and write what a venue notes about them."""

from typing import Any

import httpx
import pytest

from api.app import ROUTES
from tests.api.auth.identity import SigningKey
from tests.api.bookings.conftest import BOOKINGS, EVENING
from tests.support.builders import Db, a_calendar

#: What the operations on one booking have to be sent.
BODIES: dict[str, dict[str, Any]] = {
    "bookings.update": {"expected_version": 1, "party_size": 2},
    "bookings.status": {"status": "CANCELLED"},
}

ON_ONE_BOOKING = sorted(
    (handler.opt["operation"], method, path)
    for handler in ROUTES
    for path in handler.paths
    for method in handler.http_methods - {"HEAD", "OPTIONS"}
    if path.startswith(BOOKINGS) and "{booking_id:str}" in path
)


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def guest(key: SigningKey) -> dict[str, str]:
    return bearing(key.token("guest"))


@pytest.fixture
def lisbon(key: SigningKey) -> dict[str, str]:
    return bearing(key.token("business", sub="desk", venues=["lisbon"]))


@pytest.fixture
def booking(api: httpx.Client, db: Db, guest: dict[str, str]) -> str:
    """The path of a booking at a venue in Lisbon, which the guest ann has made for herself."""
    a_calendar(db, 20, time_zone="Europe/Lisbon", venue="lisbon")
    asked = {name: value for name, value in EVENING.items() if name != "guest_id"} | {"venue_id": "lisbon"}
    made = api.post(BOOKINGS, headers=guest, json=asked)
    assert made.status_code == 201, made.text
    return f"{BOOKINGS}/{made.json()['id']}"


@pytest.mark.parametrize(("operation", "method", "path"), ON_ONE_BOOKING)
def test_a_booking_of_somebody_else_does_not_exist(
    api: httpx.Client, key: SigningKey, booking: str, operation: str, method: str, path: str
) -> None:
    strangers = [key.token("guest", sub="bob"), key.token("business", sub="other", venues=["porto"])]
    at = path.replace(f"{BOOKINGS}/{{booking_id:str}}", booking)

    answers = [
        api.request(method, at, headers=bearing(token), json=BODIES.get(operation)).json()["type"]
        for token in strangers
    ]

    # A guest gives no booking a status, whosever it is.
    of_guests = "/problems/not-allowed" if operation == "bookings.status" else "/problems/unknown-reservation"
    assert answers == [of_guests, "/problems/unknown-reservation"]


@pytest.mark.parametrize("notes", ["not so important", "", None])
def test_a_guest_neither_sees_nor_writes_the_notes_of_the_venue(
    api: httpx.Client, guest: dict[str, str], lisbon: dict[str, str], booking: str, notes: str | None
) -> None:
    noted = api.put(booking, headers=lisbon, json={"expected_version": 1, "internal_notes": "VIP"})
    assert noted.json()["version"] == 2

    answer = api.put(booking, headers=guest, json={"expected_version": 2, "party_size": 3, "internal_notes": notes})

    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/not-allowed")
    of_guest, of_venue = (api.get(booking, headers=who).json() for who in (guest, lisbon))
    assert of_guest.get("internal_notes") is None
    assert (of_venue["internal_notes"], of_venue["version"], of_venue["party_size"]) == ("VIP", 2, 4)
