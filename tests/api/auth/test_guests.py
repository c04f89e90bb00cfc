"""Guests' personal data: who may see and change it, and that each time is in the audit."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from domain import items
from domain.access import audit
from domain.privacy import forget
from tests.api.auth.identity import SigningKey

Db = sessionmaker[Session]

SOMEBODY = {"name": "Ada Lovelace", "email": "ada@example.org"}


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def reservation(api: httpx.Client, db: Db, key: SigningKey) -> str:
    """A reservation at a venue in Lisbon, which the guest ann has made for somebody."""
    with db.begin() as session:
        items.create(session, sku="ROOM", name="Room", available_quantity=9, venue="lisbon")
    wanted = {"sku": "ROOM", "quantity": 1, "guest": SOMEBODY}
    made = api.post("/reservations", headers=bearing(key.token("guest")), json=wanted)
    return str(made.raise_for_status().json()["id"])


def recorded(db: Db) -> list[tuple[str, str, str | None, int]]:
    """Return who did what to which guests, in the order in which it was recorded."""
    with db.begin() as session:
        found = audit.find(session, audit.Filter(), limit=100)
    return [(one.who, one.action, one.subject, one.rows) for one in reversed(found)]


def search(api: httpx.Client, headers: dict[str, str]) -> Any:
    return api.post("/guests/search", headers=headers, json={"email": "ADA@example.org"}).json()["reservation_ids"]


def test_each_reading_changing_and_looking_for_a_guest_is_in_the_audit(
    api: httpx.Client, db: Db, key: SigningKey, reservation: str
) -> None:
    ann, lisbon = bearing(key.token("guest")), bearing(key.token("business", sub="desk", venues=["lisbon"]))
    guest = f"/reservations/{reservation}/guest"

    shown = api.get(guest, headers=ann).json()
    changed = api.put(guest, headers=lisbon, json=SOMEBODY | {"telephone": "+351 912 345 678"})
    found = search(api, lisbon)

    assert {name: value for name, value in shown.items() if value} == SOMEBODY
    assert (changed.status_code, found) == (200, [reservation])
    assert recorded(db) == [
        ("user:ann", "guest.read", f"reservation:{reservation}", 1),
        ("user:desk", "guest.change", f"reservation:{reservation}", 1),
        ("user:desk", "guest.search", None, 1),
    ]


def test_a_change_of_a_guest_that_is_refused_is_no_change_in_the_audit(
    api: httpx.Client, db: Db, key: SigningKey, reservation: str
) -> None:
    with db.begin() as session:
        forget(session, [UUID(reservation)])

    refused = api.put(f"/reservations/{reservation}/guest", headers=bearing(key.token("guest")), json=SOMEBODY)

    assert refused.status_code == 410
    assert recorded(db) == []


def test_a_guest_out_of_reach_is_neither_shown_nor_changed_nor_found_nor_recorded(
    api: httpx.Client, db: Db, key: SigningKey, reservation: str
) -> None:
    porto = bearing(key.token("business", venues=["porto"]))
    guest = f"/reservations/{reservation}/guest"

    assert api.get(guest, headers=porto).status_code == 404
    assert api.put(guest, headers=porto, json={"name": "Mallory"}).status_code == 404
    assert search(api, porto) == []
    assert [(action, rows) for _, action, _, rows in recorded(db)] == [("guest.search", 0)]


def test_operators_see_no_guests(api: httpx.Client, db: Db, key: SigningKey, reservation: str) -> None:
    operator = bearing(key.token("operator"))

    assert api.get(f"/reservations/{reservation}/guest", headers=operator).status_code == 403
    assert recorded(db) == []
