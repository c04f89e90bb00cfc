"""A venue with a calendar, and bookings of it over HTTP."""

from typing import Any

import httpx
import pytest

VENUE = "ristorante-vela"

BOOKINGS = "/api/v1/bookings"

#: A Friday evening for four.
EVENING: dict[str, Any] = {
    "venue_id": VENUE,
    "booking_date": "2030-05-03",
    "booking_time": "19:30",
    "duration_minutes": 120,
    "party_size": 4,
    "guest_id": "guest-42",
}


@pytest.fixture
def venue(api: httpx.Client) -> httpx.Client:
    """An API with a restaurant of twenty covers in Rome, whose list price is for each guest."""
    tables = {
        "sku": "VELA-TABLES",
        "name": "Ristorante Vela",
        "kind": "calendar",
        "capacity": 20,
        "time_zone": "Europe/Rome",
        "venue": VENUE,
        "price": {"amount": "30.00", "currency": "EUR"},
    }
    answer = api.post("/items", json=tables)
    assert answer.status_code == 201, answer.text
    return api


def book(api: httpx.Client, **fields: object) -> httpx.Response:
    """Ask for that evening, with other fields as given."""
    return api.post(BOOKINGS, json=EVENING | fields)


def made(api: httpx.Client, **fields: object) -> dict[str, Any]:
    """Make a booking, and return it."""
    answer = book(api, **fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())
