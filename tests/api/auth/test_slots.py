"""Slots: who may publish, book and decide, and what of others exists."""

import httpx
import pytest

from tests.api.auth.identity import SigningKey
from tests.api.auth.test_bookings import bearing
from tests.api.providers.conftest import MORNING, PROVIDER, SLOTS


@pytest.fixture
def owner(key: SigningKey) -> dict[str, str]:
    return bearing(key.token("provider", sub="desk", provider_id=PROVIDER))


@pytest.fixture
def guest(key: SigningKey) -> dict[str, str]:
    return bearing(key.token("guest"))


@pytest.fixture
def slot(api: httpx.Client, owner: dict[str, str]) -> None:
    published = api.post(SLOTS, json=MORNING, headers=owner)
    assert published.status_code == 201, published.text


@pytest.fixture
def booking(api: httpx.Client, slot: None, guest: dict[str, str]) -> str:
    """The id of a booking that the guest ann has made for herself."""
    made = api.post("/bookings", json={"slotId": "slot-123", "userId": "ann"}, headers=guest)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def test_a_provider_publishes_its_own_slots_only(
    api: httpx.Client, owner: dict[str, str], guest: dict[str, str]
) -> None:
    assert api.post("/providers/another/slots", json=MORNING, headers=owner).status_code == 403
    assert api.post(SLOTS, json=MORNING, headers=guest).status_code == 403
    assert api.post(SLOTS, json=MORNING).status_code == 401


def test_a_guest_books_for_nobody_else(api: httpx.Client, slot: None, guest: dict[str, str]) -> None:
    refused = api.post("/bookings", json={"slotId": "slot-123", "userId": "bob"}, headers=guest)

    assert refused.status_code == 403


def test_a_booking_of_somebody_else_does_not_exist(api: httpx.Client, key: SigningKey, booking: str) -> None:
    strangers = [key.token("guest", sub="bob"), key.token("provider", sub="other", provider_id="another")]
    asked = [("GET", ""), ("GET", "/history"), ("POST", "/cancel")]

    answers = [
        api.request(method, f"/bookings/{booking}{path}", headers=bearing(token)).json()["type"]
        for token in strangers
        for method, path in asked
    ]

    assert set(answers) == {"/problems/unknown-reservation"}


@pytest.mark.parametrize("decision", ["accept", "reject"])
def test_only_its_provider_decides(
    api: httpx.Client,
    key: SigningKey,
    booking: str,
    owner: dict[str, str],
    guest: dict[str, str],
    decision: str,
) -> None:
    path = f"/providers/{PROVIDER}/bookings/{booking}/{decision}"
    stranger = bearing(key.token("provider", sub="other", provider_id="another"))

    assert api.post(path, headers=guest).status_code == 403
    assert api.post(path, headers=stranger).status_code == 404
    assert api.post(path.replace(PROVIDER, "another"), headers=stranger).status_code == 404
    assert api.post(path, headers=owner).status_code == 200


def test_its_guest_and_its_provider_see_it(
    api: httpx.Client, booking: str, owner: dict[str, str], guest: dict[str, str]
) -> None:
    for sender in (owner, guest):
        assert api.get(f"/bookings/{booking}", headers=sender).json()["status"] == "pending"
        assert len(api.get(f"/bookings/{booking}/history", headers=sender).json()["history"]) == 1
