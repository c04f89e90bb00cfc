"""Extending holds and changing notes over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from domain import reservations
from domain.invariants.invariant import check
from domain.invariants.reservations import INVARIANTS
from domain.outbox.table import outbox
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations as table
from tests.support.builders import ROUTES, Db, a_hold, an_item, an_overdue_hold, available
from tests.support.refusals import everything

EXTENSION = ("POST", "/extend", {"ttl_seconds": 3_600})
NOTE = ("PATCH", "", {"note": "Late"})
every_change = pytest.mark.parametrize(("method", "operation", "body"), [EXTENSION, NOTE])


def instant(written: str) -> datetime:
    return datetime.fromisoformat(written)


def test_a_hold_is_extended_from_now_on(api: httpx.Client, db: Db) -> None:
    item = an_item(db, quantity=5)
    hold = a_hold(db, item, quantity=2)

    extended = api.post(f"/reservations/{hold.id}/extend", json={"ttl_seconds": 3_600})

    assert (extended.status_code, extended.headers["ETag"]) == (200, '"2"')
    shown = extended.json()
    assert {"status": "PENDING", "version": 2, "quantity": 2}.items() <= shown.items()
    assert instant(shown["expires_at"]) - instant(shown["updated_at"]) == timedelta(hours=1)
    assert instant(shown["created_at"]) == hold.created_at
    assert api.get(f"/reservations/{hold.id}").json() == shown
    assert available(db, item) == 3


def test_a_heartbeat_that_asks_for_less_than_is_left_does_not_shorten_the_hold(api: httpx.Client, db: Db) -> None:
    hold = a_hold(db, an_item(db))
    before, unchanged = api.get(f"/reservations/{hold.id}").json(), everything(db)

    answer = api.post(f"/reservations/{hold.id}/extend", json={"ttl_seconds": 60, "expected_version": 7})

    assert (answer.status_code, answer.json()) == (200, before)
    assert everything(db) == unchanged


def test_a_hold_can_not_be_extended_beyond_seven_days_from_when_it_was_made(api: httpx.Client, db: Db) -> None:
    hold = a_hold(db, an_item(db))
    made_at = hold.created_at - timedelta(minutes=10)
    with db.begin() as session:
        session.execute(update(table).where(table.c.id == hold.id).values(created_at=made_at))
    before = everything(db)

    refused = api.post(f"/reservations/{hold.id}/extend", json={"ttl_seconds": 604_800})

    assert (refused.status_code, everything(db)) == (409, before)
    problem = refused.json()
    assert (problem["type"], problem["reservation_id"]) == ("/problems/hold-too-long", str(hold.id))
    assert instant(problem["latest_expires_at"]) == made_at + timedelta(days=7)
    assert "7 days" in problem["detail"] and "Nothing was changed" in problem["detail"]


@pytest.mark.parametrize("note", ["Arrives at midnight", "", None])
def test_a_note_is_changed_and_taken_away(api: httpx.Client, db: Db, note: str | None) -> None:
    hold = a_hold(db, an_item(db))
    api.patch(f"/reservations/{hold.id}", json={"note": "Early"}).raise_for_status()

    changed = api.patch(f"/reservations/{hold.id}", json={"note": note})

    assert (changed.status_code, changed.headers["ETag"]) == (200, '"3"')
    assert {"note": note, "version": 3, "status": "PENDING"}.items() <= changed.json().items()
    assert api.get(f"/reservations/{hold.id}").json() == changed.json()


def test_a_patch_may_be_sent_as_a_merge_patch(api: httpx.Client, db: Db) -> None:
    hold = a_hold(db, an_item(db))
    headers = {"Content-Type": "application/merge-patch+json"}

    changed = api.patch(f"/reservations/{hold.id}", content=b'{"note": "Late"}', headers=headers)

    assert (changed.status_code, changed.json()["note"]) == (200, "Late")


def test_asking_for_the_note_that_is_there_succeeds_and_changes_nothing(api: httpx.Client, db: Db) -> None:
    hold = a_hold(db, an_item(db))
    headers = {"If-Match": '"1"'}
    first = api.patch(f"/reservations/{hold.id}", json={"note": "Late"}, headers=headers)
    after_first = everything(db)

    again = api.patch(f"/reservations/{hold.id}", json={"note": "Late"}, headers=headers)

    assert (first.status_code, again.status_code, again.json()) == (200, 200, first.json())
    assert everything(db) == after_first


@every_change
def test_another_version_than_if_match_names_is_not_changed(
    api: httpx.Client, db: Db, method: str, operation: str, body: Any
) -> None:
    hold = a_hold(db, an_item(db))
    before = everything(db)

    refused = api.request(method, f"/reservations/{hold.id}{operation}", json=body, headers={"If-Match": '"7"'})

    assert (refused.status_code, refused.json()["type"]) == (412, "/problems/stale-precondition")
    assert everything(db) == before


@pytest.mark.parametrize("given", ["If-Match", "expected_version"])
def test_the_version_that_is_named_is_extended(api: httpx.Client, db: Db, given: str) -> None:
    hold = a_hold(db, an_item(db))
    body = {"ttl_seconds": 3_600} | ({"expected_version": 1} if given == "expected_version" else {})
    headers = {"If-Match": '"1"'} if given == "If-Match" else {}

    extended = api.post(f"/reservations/{hold.id}/extend", json=body, headers=headers)
    again = api.post(f"/reservations/{hold.id}/extend", json=body | {"ttl_seconds": 7_200}, headers=headers)

    assert (extended.status_code, again.status_code) == (200, 412 if headers else 409)
    assert again.json()["current_version"] == 2


@every_change
@pytest.mark.parametrize("seen_by_maintenance", [False, True])
@pytest.mark.parametrize("headers", [{}, {"If-Match": '"7"'}])
def test_a_hold_that_has_lapsed_is_refused_as_such(
    api: httpx.Client,
    db: Db,
    seen_by_maintenance: bool,
    headers: dict[str, str],
    method: str,
    operation: str,
    body: Any,
) -> None:
    item = an_item(db, quantity=5)
    hold = an_overdue_hold(db, item, quantity=2)
    if seen_by_maintenance:
        with db.begin() as session:
            assert reservations.expire(session, 10, ROUTES) == 1

    refused = api.request(method, f"/reservations/{hold.id}{operation}", json=body, headers=headers)

    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/hold-expired")
    assert api.get(f"/reservations/{hold.id}").json()["status"] == "EXPIRED"
    assert available(db, item) == 5


@pytest.mark.parametrize(
    ("before", "method", "operation", "body"),
    [("confirm", *EXTENSION), ("cancel", *EXTENSION), ("reject", *EXTENSION), ("cancel", *NOTE), ("reject", *NOTE)],
)
def test_a_change_that_the_status_does_not_allow_is_refused(
    api: httpx.Client, db: Db, before: str, method: str, operation: str, body: Any
) -> None:
    hold = a_hold(db, an_item(db))
    ended = api.post(f"/reservations/{hold.id}/{before}").json()

    refused = api.request(method, f"/reservations/{hold.id}{operation}", json=body)

    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/wrong-status")
    assert refused.json()["current_status"] == ended["status"] and "to" not in refused.json()
    assert api.get(f"/reservations/{hold.id}").json() == ended


def test_a_change_carries_the_trace_of_its_request_and_names_the_client(api: httpx.Client, db: Db) -> None:
    hold = a_hold(db, an_item(db))

    api.patch(f"/reservations/{hold.id}", json={"note": "Late"}, headers={"X-Request-Id": "r-1"}).raise_for_status()

    with db.begin() as session:
        changed = outbox.c.type == "booking.updated", outbox.c.destination == "log"
        headers = session.execute(select(outbox.c.headers).where(*changed)).scalars().all()
    assert headers == [{"correlation_id": "r-1"}]


def test_a_reservation_that_an_earlier_release_rejected_says_when(api: httpx.Client, db: Db) -> None:
    """It did not write `rejected_at`."""
    hold = a_hold(db, an_item(db))
    rejected = api.post(f"/reservations/{hold.id}/reject").json()
    with db.begin() as session:
        session.execute(update(table).values(rejected_at=None))

    found = api.get("/reservations", params={"status": "REJECTED"}).json()["reservations"]

    assert found == [rejected] and rejected["rejected_at"] == rejected["updated_at"]
    assert api.get(f"/reservations/{hold.id}").json() == rejected


CLIENTS = 64


def test_heartbeats_of_64_clients_extend_their_holds_while_maintenance_expires_others(
    api: httpx.Client, db: Db
) -> None:
    """Half of them extend one hold, the others a hold each, and ten holds lapse meanwhile."""
    item = an_item(db, quantity=100)
    shared, *own = [a_hold(db, item).id for _ in range(1 + CLIENTS // 2)]
    lapsed = [an_overdue_hold(db, item).id for _ in range(10)]

    def beat(number: int) -> list[int]:
        one = shared if number % 2 else own[number // 2]
        return [
            api.post(f"/reservations/{one}/extend", json={"ttl_seconds": 1_800 + beats}).status_code
            for beats in range(3)
        ]

    def expire(_: int) -> None:
        with db.begin() as session:
            reservations.expire(session, 2, ROUTES)

    with ThreadPoolExecutor(CLIENTS) as clients, ThreadPoolExecutor(1) as maintenance:
        maintenance.map(expire, range(20))
        answers = [status for each in clients.map(beat, range(CLIENTS)) for status in each]

    assert answers == [200] * 3 * CLIENTS
    with db.begin() as session:
        by_id = {one.id: one for one in reservations.lock(session, [shared, *own, *lapsed])}
    assert {by_id[one].status for one in lapsed} == {Status.EXPIRED}
    assert {by_id[one].status for one in [shared, *own]} == {Status.PENDING}
    assert by_id[shared].version > 2 and all(by_id[one].version == 4 for one in own)
    assert available(db, item) == 100 - 1 - len(own)
    with db.begin() as session:
        assert [check(session, one).violations for one in INVARIANTS] == [0] * len(INVARIANTS)
