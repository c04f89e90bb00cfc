"""A provider with slots, and bookings of them over HTTP."""

from typing import Any

import httpx

PROVIDER = "provider-789"
SLOTS = f"/providers/{PROVIDER}/slots"
USER = "user-456"

#: A slot of an hour.
MORNING: dict[str, Any] = {
    "slotId": "slot-123",
    "start": "2030-02-19T10:00:00Z",
    "end": "2030-02-19T11:00:00Z",
    "name": "Consultation",
}


def publish(api: httpx.Client, **fields: object) -> httpx.Response:
    """Ask for that slot to be published, with other fields as given."""
    return api.post(SLOTS, json=MORNING | fields)


def published(api: httpx.Client, **fields: object) -> dict[str, Any]:
    """Publish a slot, and return it."""
    answer = publish(api, **fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def book(api: httpx.Client, **fields: object) -> httpx.Response:
    """Ask for a booking of that slot, with other fields as given."""
    return api.post("/bookings", json={"slotId": MORNING["slotId"], "userId": USER} | fields)


def booked(api: httpx.Client, **fields: object) -> dict[str, Any]:
    """Book that slot, and return the booking."""
    answer = book(api, **fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def decide(api: httpx.Client, booking: dict[str, Any], decision: str, provider: str = PROVIDER) -> httpx.Response:
    """Have a provider accept or reject a booking."""
    return api.post(f"/providers/{provider}/bookings/{booking['id']}/{decision}")
