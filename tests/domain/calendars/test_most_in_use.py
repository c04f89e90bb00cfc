"""What is in use at most, added up by PostgreSQL, beside what is added up in Python."""

from datetime import timedelta
from random import Random
from typing import Any

from sqlalchemy import insert, text

from domain.calendars.capacity import Occupied, Timeline
from domain.calendars.most_in_use import InUse, most_in_use
from domain.calendars.periods import Period
from domain.calendars.table import occupancies
from domain.runtime.database import now
from domain.runtime.identity import new_id
from tests.support.builders import FRIDAY, Db

HOUR = timedelta(hours=1)
CALENDARS = range(1, 101)


def a_period(dice: Random) -> Period:
    start = FRIDAY + dice.randrange(20) * HOUR
    return Period(start, start + dice.randint(1, 8) * HOUR)


def test_postgresql_adds_up_what_is_in_use_at_most_as_a_timeline_does(db: Db) -> None:
    dice = Random(20251120)
    asked = [(item_id, a_period(dice)) for item_id in CALENDARS]

    with db.begin() as session:
        moment = now(session)
        rows: list[dict[str, Any]] = [
            {
                "reservation_id": new_id(),
                "position": 1,
                "item_id": item_id,
                "units": dice.randint(1, 4),
                "blocked_from": taken.start,
                "blocked_until": taken.end,
                "held_until": dice.choice([None, moment - HOUR, moment + HOUR]),
                "is_exclusive": False,
            }
            for item_id in CALENDARS
            for taken in [a_period(dice) for _ in range(dice.randrange(12))]
        ]
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(insert(occupancies), rows)
        but = rows[0]["reservation_id"]
        found = most_in_use(session, asked, but=but)

    others = [row for row in rows if row["reservation_id"] != but]
    lasting = [row for row in others if row["held_until"] is None or row["held_until"] > moment]
    expected = [InUse(*(in_use(some, item_id, time) for some in (others, lasting))) for item_id, time in asked]
    assert found == expected
    assert len({*expected}) > 20


def in_use(rows: list[dict[str, Any]], item_id: int, time: Period) -> int:
    taken = [Occupied(*(row[name] for name in NAMES)) for row in rows if row["item_id"] == item_id]
    return Timeline(taken).greatest_use(time.start, time.end)


NAMES = "blocked_from", "blocked_until", "units"
