"""Lists over HTTP: whoever sees only what is their own learns nothing of others, whatever they ask for."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import httpx
import pytest
from sqlalchemy import insert
from sqlalchemy.orm import Session, sessionmaker

from domain.reservations.lifecycle import Status
from domain.reservations.queries import MAX_PASSED_OVER
from domain.reservations.table import reservation_lines, reservations
from domain.runtime.identity import new_id
from tests.api.auth.identity import SigningKey
from tests.support.builders import a_calendar, hours

Db = sessionmaker[Session]

#: More than a page of one passes over.
MANY = MAX_PASSED_OVER + 50

ROLES = ("guest", "business", "provider")

WINDOW = {"starts_before": "2031-01-01T00:00:00Z"}


@pytest.fixture
def room(db: Db) -> int:
    """A room of others, which others have reserved more often than a list passes over, each time with the garage."""
    room = a_calendar(db, sku="ROOM", venue="porto", provider="rui").id
    period = hours(9, 10)
    row: dict[str, Any] = {"item_id": room, "quantity": 1, "status": Status.CONFIRMED, "source": "csv"}
    owners = {"guest_id": "bob", "venue": "porto", "provider": "rui"}
    times = {"starts_at": period.start, "ends_at": period.end}
    ids = [new_id() for _ in range(MANY)]
    line = {"position": 2, "item_id": a_calendar(db, sku="GARAGE").id, "quantity": 1, **times}
    with db.begin() as session:
        session.execute(insert(reservations), [{**row, **owners, **times, "id": one, "line_count": 2} for one in ids])
        session.execute(insert(reservation_lines), [{**line, "reservation_id": one} for one in ids])
    return room


def asked(room: int) -> Iterator[dict[str, Any]]:
    """Yield the filters by each value of others, alone and with a window, and by all of them."""
    each: list[dict[str, Any]] = [
        {"item_id": room},
        {"sku": "ROOM"},
        {"sku": "GARAGE"},
        {"source": "csv"},
        {"status": "CONFIRMED"},
    ]
    each += [{"guest_id": "bob"}, {"venue": "porto"}, {"provider": "rui"}, {"item_id": room, "source": "csv"}]
    for one, window in product(each, ({}, WINDOW)):
        yield {**one, **window}


@pytest.mark.parametrize("role", ROLES)
def test_who_has_no_reservation_gets_one_empty_page_without_a_cursor(
    api: httpx.Client, key: SigningKey, room: int, role: str
) -> None:
    token = key.token(role, venues=["lisbon"], provider_id="rita")

    for query in asked(room):
        answer = api.get("/reservations", params={"limit": 1, **query}, headers={"Authorization": f"Bearer {token}"})

        assert answer.json() == {"reservations": [], "next_cursor": None}, query
