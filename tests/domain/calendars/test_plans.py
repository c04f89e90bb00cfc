"""The plans of availability and of explanations: they read what overlaps, whatever the statistics say."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from domain import calendars, items
from domain.calendars import Period, snapshot
from domain.runtime.database import sessions
from domain.runtime.errors import NotFree
from tests.conftest import empty
from tests.domain.reservations.test_plans import Plan, executed
from tests.support.builders import FRIDAY, Db

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("busy_calendars")]

#: A room has so many reservations of fifty minutes, one an hour. Others, of which ten are taken at any moment, have as
#: many reservations of ten hours. The remaining rooms of the hotel have few. All were made in any order.
RESERVATIONS = 30_000
FILL = (
    "SET LOCAL session_replication_role = replica",
    """
    INSERT INTO items (sku, name, kind, capacity, time_zone, buffer_before_seconds, buffer_after_seconds, venue)
    SELECT 'ROOM-' || n, 'Room', 'calendar', CASE n WHEN 2 THEN 20 ELSE 1 END, 'UTC', 0, 0, 'hotel'
    FROM generate_series(1, 1000) AS n
    """,
    """
    INSERT INTO calendar_occupancies
        (reservation_id, position, item_id, units, blocked_from, blocked_until, is_exclusive)
    SELECT gen_random_uuid(), 1, item_id, 1, start, start + length, item_id <> 2
    FROM (
        SELECT item_id, length, :middle + (n - :reservations / 2) * interval '1 hour' AS start
        FROM (VALUES (1, interval '50 minutes'), (2, interval '10 hours')) AS kind (item_id, length),
             generate_series(1, :reservations) AS n
        UNION ALL
        SELECT item_id, interval '1 hour', :middle + n * interval '1 day'
        FROM generate_series(3, 1000) AS item_id, generate_series(1, 20) AS n
    ) AS rows
    ORDER BY md5(item_id::text || start::text)
    """,
)

#: What PostgreSQL knows of the tables: nothing, that they were vacuumed while they were empty, everything.
STATISTICS = {
    "none": [],
    "empty": ["UPDATE pg_class SET relpages = 0, reltuples = 0 WHERE relname ~ '(items|calendar_occupancies)'"],
    "fresh": ["VACUUM ANALYZE items, calendar_occupancies"],
}

WEEK = Period(FRIDAY, FRIDAY + timedelta(days=7))

#: So many reservations of a busy calendar overlap a day, a week, and the days in which alternatives are searched.
OF_A_DAY, OF_A_WEEK, OF_THE_SEARCH = ((days * 24 + 10) for days in (1, 7, 28))

#: The pages of both indexes that are read before the first row is found. GiST puts a row into one of several pages by
#: chance, so that more than one may have to be read of each level.
DESCENTS = 8


@pytest.fixture(scope="module")
def crowd(engine: Engine) -> Iterator[Engine]:
    """A database with calendars that PostgreSQL has never analysed."""
    empty(engine)
    tables = "items", "calendar_occupancies"
    with engine.begin() as connection:
        for name in tables:
            connection.execute(text(f"ALTER TABLE {name} SET (autovacuum_enabled = false)"))
        for statement in FILL:
            values = {"reservations": RESERVATIONS, "middle": FRIDAY}
            connection.execute(text(statement), {name: values[name] for name in values if f":{name}" in statement})
    yield engine
    empty(engine)
    with engine.begin() as connection:
        for name in tables:
            connection.execute(text(f"ALTER TABLE {name} RESET (autovacuum_enabled)"))


@pytest.fixture(scope="module", params=STATISTICS)
def crowded(crowd: Engine, request: pytest.FixtureRequest) -> Db:
    """The same database with no statistics, with wrong ones, and with fresh ones."""
    with crowd.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in STATISTICS[request.param]:
            connection.execute(text(statement))
    crowd.dispose()  # so that no connection keeps what it knew of the tables
    return sessions(crowd)


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("sku", ["ROOM-1", "ROOM-2", "ROOM-3"])
def test_a_week_of_a_busy_calendar_reads_what_is_taken_in_it(crowded: Db, sku: str, generic: bool) -> None:
    rooms = found(crowded, sku)

    plan = executed(crowded, lambda session: snapshot(session, [room.id for room in rooms], WEEK), generic=generic)

    assert_no_table_is_read_whole(plan)
    assert plan.pages <= 1.2 * OF_A_WEEK + DESCENTS


def test_a_week_of_a_hundred_calendars_reads_what_is_taken_in_it(crowded: Db) -> None:
    rooms = found(crowded, *(f"ROOM-{number}" for number in range(3, 103)))

    plan = executed(crowded, lambda session: snapshot(session, [room.id for room in rooms], WEEK))

    assert_no_table_is_read_whole(plan)
    assert plan.pages <= 100 * (7 + DESCENTS)


@pytest.mark.parametrize(("sku", "read"), [("ROOM-1", OF_THE_SEARCH), ("ROOM-2", 3 * OF_A_DAY)])
def test_an_explanation_reads_what_is_near_the_period_and_some_other_calendars(
    crowded: Db, sku: str, read: int
) -> None:
    """Of ROOM-1 no hour is free. Of ROOM-2 hours are free nearby, so the reading ends a day before and after them."""
    refused = NotFree(sku, 1, 0, FRIDAY, FRIDAY + timedelta(hours=1))

    plan = executed(crowded, lambda session: calendars.explain(session, refused))

    assert_no_table_is_read_whole(plan)
    assert plan.pages <= 1.2 * read + 51 * DESCENTS


def found(db: Db, *skus: str) -> Sequence[items.Item]:
    with db() as session:
        return [items.get(session, sku) for sku in skus]


def assert_no_table_is_read_whole(plan: Plan) -> None:
    assert not {"Seq Scan", "Parallel Seq Scan"} & {kind for kind, _ in plan.scans}, plan
