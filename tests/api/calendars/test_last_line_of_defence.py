"""Time that somebody takes without locking the calendar: a constraint keeps it from being sold twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import text

from tests.api.calendars.test_calendars import a_calendar, reserve, times
from tests.support.builders import Db
from tests.support.waiting import wait_until

#: As a second line of a reservation, which takes the time from 11 to 12 o'clock of a room.
TAKE = text("""
    INSERT INTO calendar_occupancies
    VALUES (:reservation_id, 2, :item_id, 1, '2030-05-03T11:00:00Z', '2030-05-03T12:00:00Z', NULL, true)
""")

#: A backend of this database that waits for another's transaction.
WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")

Ask = Callable[[httpx.Client, str], httpx.Response]


def new(api: httpx.Client, path: str) -> httpx.Response:
    return reserve(api, 11, 13)


def moved(api: httpx.Client, path: str) -> httpx.Response:
    return api.put(path, json=times(11, 13))


@pytest.mark.parametrize("ask", [new, moved])
def test_time_that_was_taken_meanwhile_without_a_lock_is_not_free(api: httpx.Client, db: Db, ask: Ask) -> None:
    room = a_calendar(api)
    path = reserve(api, 8, 9).headers["Location"]
    another = reserve(api, 16, 17).json()["id"]

    with ThreadPoolExecutor(1) as threads:
        with db.begin() as session:
            session.execute(TAKE, {"item_id": room["id"], "reservation_id": another})
            asked = threads.submit(ask, api, path)
            wait_until("the constraint is waited for", lambda: waits(db))
        answer = asked.result()

    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/not-free")
    assert answer.json()["conflicts"][0]["start"] == "2030-05-03T11:00:00Z"
    assert reserve(api, 8.5, 9).status_code == 409


def waits(db: Db) -> bool:
    with db.begin() as session:
        return bool(session.execute(WAITING).scalar_one())
