"""The schema says which is the oldest revision whose code it serves, and a release that is rolled back accepts it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from domain.runtime.schema import SCHEMA_VERSION
from tests.migrations.databases import (
    PLANTED,
    REVISIONS,
    SCRIPTS,
    before,
    catalogue,
    command,
    connected,
    planted,
    read,
    upgrade,
)

pytestmark = pytest.mark.slow

#: The migrations that must say it if they remove something. Before the first of them, nobody ran two releases at once.
LATER = [revision for revision in reversed(REVISIONS) if revision > "0002"]

Catalogue = Mapping[str, set[tuple[Any, ...]]]

REMOVING = {
    "a column": "ALTER TABLE reservations DROP COLUMN note",
    "the name of a column": "ALTER TABLE reservations RENAME COLUMN note TO remark",
    "a table": "DROP TABLE outbox_routes",
    "the name of a table": "ALTER TABLE outbox_routes RENAME TO planted",
    "a type": "ALTER TABLE reservations ALTER COLUMN quantity TYPE bigint",
    "a default": "ALTER TABLE outbox ALTER COLUMN attempts DROP DEFAULT",
    "null": "ALTER TABLE reservations ALTER COLUMN guest_id SET NOT NULL",
    "rows without a new column": "ALTER TABLE outbox_lanes ADD COLUMN planted int NOT NULL",
    "values": "ALTER TABLE reservations ADD CONSTRAINT planted CHECK (quantity < 1000) NOT VALID",
    "a constraint that a conflict names": "ALTER TABLE items DROP CONSTRAINT uq_items_sku",
}

ADDING = {
    "a column": "ALTER TABLE reservations ADD COLUMN planted text, ADD COLUMN planted_too int NOT NULL DEFAULT 7",
    "a table": "CREATE TABLE planted (id bigint PRIMARY KEY, item_id bigint NOT NULL REFERENCES items (id))",
    "an index": "CREATE INDEX planted ON outbox_lanes (epoch)",
}


def removes(earlier: Catalogue, later: Catalogue) -> list[tuple[Any, ...]]:
    """Return what older code may miss, or can't know: what is gone or different, and what old tables now require."""
    tables = {table for table, *_ in earlier["columns"]}
    required = {
        column
        for column in later["columns"] - earlier["columns"]
        if column[0] in tables and column[4] == "NO" and column[5] is None and column[6] == "NO"
    }
    changed = earlier["constraints"] ^ later["constraints"]
    # That a column may be null or not is said by the columns, too; not every PostgreSQL has a constraint for it.
    constraints = {one for one in changed if one[0] in tables and not one[2].startswith("NOT NULL")}
    return sorted((earlier["columns"] - later["columns"]) | required | constraints, key=str)


@pytest.mark.parametrize("revision", LATER)
def test_a_migration_that_removes_something_says_which_code_still_runs(url: str, revision: str) -> None:
    upgrade(url, before(revision))
    earlier = catalogue(url)
    upgrade(url, revision)

    module = SCRIPTS.get_revision(revision).module
    assert not removes(earlier, catalogue(url)) or hasattr(module, "serves_from")
    assert getattr(module, "serves_from", revision) <= revision


@pytest.mark.parametrize("statement", REMOVING.values(), ids=REMOVING)
def test_what_older_code_may_miss_is_noticed(migrated: str, tmp_path: Path, statement: str) -> None:
    earlier = catalogue(migrated)
    upgrade(migrated, scripts=planted(tmp_path, body=f'op.execute("{statement}")'))

    assert removes(earlier, catalogue(migrated))


@pytest.mark.parametrize("statement", ADDING.values(), ids=ADDING)
def test_what_older_code_does_not_miss_is_not_reported(migrated: str, tmp_path: Path, statement: str) -> None:
    earlier = catalogue(migrated)
    upgrade(migrated, scripts=planted(tmp_path, body=f'op.execute("{statement}")'))

    assert removes(earlier, catalogue(migrated)) == []


def stored(url: str) -> tuple[str, str]:
    ((version, serves_from),) = read(url, "SELECT version_num, serves_from FROM alembic_version")
    return version, serves_from


def test_the_schema_serves_the_code_since_the_last_migration_that_removed_something(url: str) -> None:
    upgrade(url, "0001")
    assert stored(url) == ("0001", "0001")
    upgrade(url, "0002")
    assert stored(url) == ("0002", "0001")
    upgrade(url, "0003")
    assert stored(url) == ("0003", "0003")


def test_going_back_serves_older_code_again(migrated: str) -> None:
    assert run(migrated, "0002") == (0, f"The schema was taken from {SCHEMA_VERSION} to 0002.\n", "")

    assert stored(migrated) == ("0002", "0001")


def test_a_database_from_before_this_was_stored_gets_it_with_its_next_migration(url: str, tmp_path: Path) -> None:
    upgrade(url)
    before_that = stored(url)
    with connected(url) as connection:
        connection.execute(text("ALTER TABLE alembic_version DROP COLUMN serves_from"))

    upgrade(url, scripts=planted(tmp_path, body="pass"))

    assert stored(url) == (PLANTED, before_that[1])


def run(url: str, *arguments: str) -> tuple[int, str, str]:
    process = command(url, *arguments)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_a_release_that_is_rolled_back_accepts_a_newer_schema_that_serves_it(migrated: str, tmp_path: Path) -> None:
    upgrade(migrated, scripts=planted(tmp_path, body="pass"))

    code, output, errors = run(migrated)

    assert (code, errors) == (0, "")
    assert output == f"The schema is at {PLANTED}, which a newer release has made. It serves this release too.\n"


def test_a_newer_schema_that_does_not_serve_this_release_is_refused(migrated: str, tmp_path: Path) -> None:
    upgrade(migrated, scripts=planted(tmp_path, body="pass", declared=f'serves_from = "{PLANTED}"'))

    code, output, errors = run(migrated)

    assert (code, output) == (1, "")
    assert errors == (
        f"The schema is at {PLANTED}, which a newer release has made; it does not serve this release, which needs"
        f" {SCHEMA_VERSION}. Nothing was changed. Use bin/migrate of that release.\n"
    )


@pytest.mark.parametrize("revision", ["-1", "0001", "+1"])
def test_a_newer_schema_is_taken_elsewhere_by_its_own_release_alone(
    migrated: str, tmp_path: Path, revision: str
) -> None:
    upgrade(migrated, scripts=planted(tmp_path, body="pass"))

    code, output, errors = run(migrated, revision)

    assert (code, output) == (1, "")
    assert "Nothing was changed. Use bin/migrate of that release." in errors
    assert stored(migrated)[0] == PLANTED
