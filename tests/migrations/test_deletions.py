"""bin/migrate back: it says what would be deleted, asks for the database's name, and knows what can't be undone."""

from collections.abc import Mapping, Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from domain.runtime.schema import SCHEMA_VERSION
from migrations import deletions
from tests.migrations.databases import (
    REVISIONS,
    before,
    catalogue,
    configured,
    connected,
    downgrade,
    migrate,
    name_of,
    read,
    upgrade,
)

pytestmark = pytest.mark.slow

ITEM = "INSERT INTO items (sku, name) VALUES ('MUG', 'Mug')"

CALENDAR = """
    INSERT INTO items (sku, name, kind, capacity, time_zone, buffer_before_seconds, buffer_after_seconds)
    VALUES ('ROOM', 'Room', 'calendar', 1, 'UTC', 0, 0)
"""

#: A hold of a calendar may have no end, which no earlier schema allows.
ENDLESS_HOLD = """
    INSERT INTO reservations (id, item_id, quantity, status, starts_at, ends_at)
    SELECT gen_random_uuid(), id, 1, 'PENDING', now(), now() + interval '1 h' FROM items WHERE kind = 'calendar'
"""

RESERVATIONS = """
    INSERT INTO reservations (id, item_id, quantity, status, rejected_at)
    SELECT gen_random_uuid(), id, 1, 'REJECTED', CASE WHEN n > 1 THEN now() END
    FROM items, generate_series(1, 3) AS n
"""

FEED = """
    INSERT INTO feed_events (position, event_id, type, aggregate_id, payload, created_at)
    SELECT n, gen_random_uuid(), 'booking.created', gen_random_uuid(), '{}', now() FROM generate_series(1, 7) AS n
"""

LANES = "INSERT INTO outbox_lanes (destination, lane, low_watermark) VALUES ('shop', 0, 9), ('shop', 1, 0)"

#: Each column that there is: where it is, and its name. A column that is renamed stays where it is.
COLUMNS = """
    SELECT attrelid, attnum, relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
"""

Snapshot = tuple[Mapping[str, object], Mapping[str, int], str]

#: The steps back from the newest revision.
TO_0009, TO_0008 = (f"-{REVISIONS.index(revision)}" for revision in ("0009", "0008"))


def execute(url: str, *statements: str) -> None:
    with connected(url) as connection:
        for statement in statements:
            connection.execute(text(statement))


def version(url: str) -> str:
    ((found,),) = read(url, "SELECT version_num FROM alembic_version")
    return str(found)


def everything(url: str) -> Snapshot:
    """Return the schema, the number of rows of each table, and the version."""
    schema = catalogue(url)
    tables = {table for table, *_ in schema["columns"]}
    return schema, {table: read(url, f"SELECT count(*) FROM {table}")[0][0] for table in tables}, version(url)


def dropped(revision: str, target: str) -> set[str]:
    return {str(one) for one in deletions.dropped(configured(), revision, target)}


def listed(errors: str) -> Sequence[str]:
    return [line.strip() for line in errors.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("revision", REVISIONS)
def test_what_a_downgrade_is_said_to_drop_is_what_is_gone_afterwards(url: str, revision: str) -> None:
    target = "base" if revision == REVISIONS[-1] else before(revision)
    upgrade(url, revision)
    there = {(table, column): name for table, column, *name in read(url, COLUMNS)}
    assert migrate(url, target).returncode == 0

    left = {(table, column) for table, column, *_ in read(url, COLUMNS)}
    gone = [(place[0], *name) for place, name in there.items() if place not in left]
    # A table that is renamed stays where it is.
    tables_left = {table for table, _ in left}
    whole = {name for table, name, _ in gone if table not in tables_left}
    assert dropped(revision, target) == whole | {f"{name}.{column}" for _, name, column in gone if name not in whole}


def test_events_of_the_feed_are_deleted_only_with_the_name_of_the_database(migrated: str) -> None:
    execute(migrated, FEED)
    before_that = everything(migrated)

    for arguments in ([TO_0009], ["0009"], [TO_0009, "--erase", "holdfast"]):
        refused = migrate(migrated, *arguments)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("Nothing was changed. ")
        assert listed(refused.stderr) == ["feed_events: 7 rows"]
        assert refused.stderr.endswith(f"bin/migrate {arguments[0]} --erase {name_of(migrated)}\n")
    assert everything(migrated) == before_that
    erased = migrate(migrated, TO_0009, "--erase", name_of(migrated))

    assert (erased.returncode, erased.stderr) == (0, "")
    assert erased.stdout == f"The schema was taken from {SCHEMA_VERSION} to 0009.\n"


@pytest.mark.parametrize("arguments", [["0008"], [TO_0008], ["0001"], ["0008", "--erase"]], ids=" ".join)
def test_the_schema_is_not_taken_back_beyond_calendars_and_no_step_is_taken(
    migrated: str, arguments: list[str]
) -> None:
    execute(migrated, FEED, CALENDAR, ENDLESS_HOLD)
    before_that = everything(migrated)

    run = migrate(migrated, *arguments, *([name_of(migrated)] if "--erase" in arguments else []))

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"The schema can't be taken to {arguments[0]}: there are calendars")
    assert run.stderr.endswith("Nothing was changed.\n") and len(run.stderr.splitlines()) == 1
    assert everything(migrated) == before_that


def test_a_calendar_that_is_created_after_the_steps_back_have_begun_is_kept(migrated: str) -> None:
    """Then bin/migrate has found none. The downgrade itself looks again."""
    execute(migrated, CALENDAR)
    with pytest.raises(DBAPIError, match="there are calendars"):
        downgrade(migrated, "0008")

    assert version(migrated) == "0009"
    assert read(migrated, "SELECT count(*) FROM items WHERE kind = 'calendar'") == [(1,)]


def test_calendars_are_deleted_on_the_way_to_an_empty_database(migrated: str) -> None:
    execute(migrated, FEED, CALENDAR, ENDLESS_HOLD)

    asked = migrate(migrated, "base")
    erased = migrate(migrated, "base", "--erase", name_of(migrated))

    assert listed(asked.stderr) == ["feed_events: 7 rows", "items: 1 row", "reservations: 1 row"]
    assert (erased.returncode, erased.stderr) == (0, "")
    assert catalogue(migrated)["columns"] == set()


def test_columns_are_listed_that_have_other_values_than_their_default(migrated: str) -> None:
    execute(migrated, ITEM, RESERVATIONS, "UPDATE reservations SET client_id = 'shop' WHERE rejected_at IS NULL")

    run = migrate(migrated, "0004")

    assert (run.returncode, version(migrated)) == (2, SCHEMA_VERSION)
    assert listed(run.stderr) == ["reservations.client_id: 1 row", "reservations.rejected_at: 2 rows"]


def test_a_column_is_listed_by_its_present_name(migrated: str) -> None:
    execute(migrated, LANES)

    assert listed(migrate(migrated, "0001").stderr) == ["outbox_lanes.low_watermark: 1 row"]
    assert migrate(migrated, "0002").returncode == 0


def test_nothing_is_asked_when_nothing_would_be_deleted(migrated: str) -> None:
    execute(migrated, ITEM)

    assert migrate(migrated, "-3").returncode == 0
    assert read(migrated, "SELECT sku FROM items") == [("MUG",)]


def test_the_wrong_name_is_refused_even_if_nothing_would_be_deleted(migrated: str) -> None:
    run = migrate(migrated, "-1", "--erase", "holdfast")

    assert (run.returncode, version(migrated)) == (2, SCHEMA_VERSION)
    assert f"The connected database is {name_of(migrated)!r} and not 'holdfast'. " in run.stderr
    assert listed(run.stderr) == ["It has no rows there."]


def test_going_back_after_an_interruption_counts_what_is_left(migrated: str) -> None:
    execute(migrated, ITEM, RESERVATIONS, "DROP TABLE feed_events", "ALTER TABLE items DROP COLUMN venue")

    assert listed(migrate(migrated, "0007").stderr) == ["reservations.rejected_at: 2 rows"]
