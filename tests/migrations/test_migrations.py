"""bin/migrate: to the schema that the code needs and back, one at a time, and to an empty one only on purpose."""

import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, func, inspect, select, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from domain import feed, idempotency, items, outbox, reservations  # noqa: F401 - they fill the metadata
from domain.runtime.database import metadata
from domain.runtime.schema import SCHEMA_VERSION
from migrations import locks
from tests.migrations.databases import CATALOGUE, REVISIONS, SCRIPTS, downgrade, driver, migrate, name_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

#: The tables of this release.
OURS = {table.name for table in metadata.sorted_tables}


def erase(url: str, revision: str = "base") -> subprocess.CompletedProcess[str]:
    """Go back to an empty database, on purpose."""
    return migrate(url, revision, "--erase", name_of(url))


def tables(url: str) -> set[str]:
    return set(inspect(create_engine(driver(url), poolclass=NullPool)).get_table_names())


def test_the_schema_can_be_made_and_erased_and_made_again(url: str) -> None:
    assert (migrate(url).returncode, tables(url)) == (0, OURS | {"alembic_version"})
    assert (erase(url).returncode, tables(url)) == (0, {"alembic_version"})
    assert (migrate(url).returncode, tables(url)) == (0, OURS | {"alembic_version"})
    assert (erase(url).returncode, tables(url)) == (0, {"alembic_version"})


def test_every_migration_can_be_taken_back_alone(migrated: str) -> None:
    newest, before, *others = REVISIONS
    assert newest == SCHEMA_VERSION

    assert migrate(migrated, "-1").stdout == f"The schema was taken from {newest} to {before}.\n"
    for revision in others:
        downgrade(migrated, revision)
    erased = f"The schema was taken from {REVISIONS[-1]} to base.\n"
    assert (erase(migrated, "-1").stdout, tables(migrated)) == (erased, {"alembic_version"})


def test_an_earlier_revision_can_be_gone_back_to_by_its_name(migrated: str) -> None:
    back = migrate(migrated, REVISIONS[-1])
    again = migrate(migrated, REVISIONS[-1])
    forth = migrate(migrated, "+1")

    assert [run.returncode for run in (back, again, forth)] == [0, 0, 0]
    assert back.stdout == f"The schema was taken from {SCHEMA_VERSION} to {REVISIONS[-1]}.\n"
    assert again.stdout == f"The schema is at {REVISIONS[-1]} already. Nothing was changed.\n"
    assert forth.stdout == f"The schema was taken from {REVISIONS[-1]} to {REVISIONS[-2]}.\n"


def test_migrating_a_migrated_database_changes_nothing(url: str) -> None:
    first, again = migrate(url), migrate(url)

    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout == f"The schema was taken from base to {SCHEMA_VERSION}.\n"
    assert again.stdout == f"The schema is at {SCHEMA_VERSION} already. Nothing was changed.\n"
    assert again.stderr == ""


@pytest.mark.parametrize(
    "arguments", [["base"], ["base", "--erase", "holdfast"], ["base", "--erase="], [f"-{len(REVISIONS)}"]]
)
def test_without_the_name_of_the_database_nothing_is_deleted(migrated: str, arguments: list[str]) -> None:
    with create_engine(driver(migrated), poolclass=NullPool).begin() as connection:
        connection.execute(text("INSERT INTO items (sku, name) VALUES ('MUG-BLUE', 'Mug'), ('MUG-RED', 'Mug')"))

    run = migrate(migrated, *arguments)

    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("Nothing was changed. ") and f"the database {name_of(migrated)!r}" in run.stderr
    listed = [line.strip() for line in run.stderr.splitlines() if line.startswith("  ")]
    assert listed == ["items: 2 rows"]
    assert run.stderr.endswith(f"To delete all of that: bin/migrate {arguments[0]} --erase {name_of(migrated)}\n")
    assert ("'holdfast'" in run.stderr) == ("holdfast" in arguments)
    assert tables(migrated) == OURS | {"alembic_version"}
    with create_engine(driver(migrated), poolclass=NullPool).connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM items")).scalar_one() == 2


@pytest.mark.parametrize("revision", ["head", SCHEMA_VERSION])
def test_a_migration_that_does_not_go_back_does_not_take_the_name(migrated: str, revision: str) -> None:
    run = migrate(migrated, revision, "--erase", name_of(migrated))

    assert (run.returncode, run.stdout) == (2, "")
    assert "--erase is only for" in run.stderr
    with create_engine(driver(migrated), poolclass=NullPool).connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == SCHEMA_VERSION


def test_the_migrated_schema_is_that_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize("what", CATALOGUE)
def test_the_migrated_schema_is_that_of_the_code_in_every_detail(url: str, engine: Engine, what: str) -> None:
    """Alembic compares no checks, no conditions of indexes and no options; PostgreSQL's catalogue has all of them."""
    code = create_engine(driver(url), poolclass=NullPool)
    metadata.create_all(code)
    with engine.connect() as migrated, code.connect() as wanted:
        there, wanted_there = (set(one.execute(text(CATALOGUE[what])).all()) for one in (migrated, wanted))

    assert {row for row in there if row[0] != "alembic_version"} == wanted_there
    assert wanted_there


def test_every_constraint_has_a_name_of_ours(engine: Engine) -> None:
    with engine.connect() as connection:
        named = text(
            "SELECT conname FROM pg_constraint WHERE contype <> 'n' AND connamespace = 'public'::regnamespace"
            " AND conname NOT LIKE 'alembic%'"
        )
        names = connection.execute(named).scalars().all()
    assert names
    assert all(name.split("_")[0] in {"pk", "uq", "ck", "fk", "ex"} for name in names)


def test_the_revision_that_the_code_needs_is_the_newest(engine: Engine) -> None:
    assert SCRIPTS.get_heads() == [SCHEMA_VERSION]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == SCHEMA_VERSION


def test_two_migrations_at_once_are_applied_one_after_the_other(url: str) -> None:
    db = sessionmaker(create_engine(driver(url)))
    with ThreadPoolExecutor(2) as elsewhere, db.begin() as session:
        session.execute(select(func.pg_advisory_xact_lock(locks.ADVISORY_LOCK)))
        runs = [elsewhere.submit(migrate, url) for _ in range(2)]
        wait_until("both wait for their turn", lambda: len(waiting_for_their_turn(db)) == 2)
        session.commit()

        assert [run.result().returncode for run in runs] == [0, 0], [run.result().stderr for run in runs]
    db.kw["bind"].dispose()
    assert "reservations" in tables(url)


def waiting_for_their_turn(db: sessionmaker[Session]) -> Sequence[Any]:
    """Return the connections of migrations that wait for another one: what they hold meanwhile."""
    asked = text(
        "SELECT state, backend_xmin, backend_xid FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%'"
    )
    with db.begin() as session:
        return session.execute(asked).all()


@pytest.mark.timed
def test_a_migration_does_not_wait_long_for_a_lock_and_changes_nothing(migrated: str) -> None:
    with create_engine(driver(migrated), poolclass=NullPool).begin() as busy:
        busy.execute(text("LOCK TABLE outbox IN ACCESS SHARE MODE"))
        began = time.monotonic()
        run = erase(migrated)

    assert run.returncode == 1
    assert time.monotonic() - began < 30
    assert "lock timeout" in run.stderr and "run it again" in run.stderr
    assert "The migration that failed was undone" in run.stderr and len(run.stderr.splitlines()) == 1
    assert "outbox" in tables(migrated)
    assert erase(migrated).returncode == 0


@pytest.mark.parametrize("revision", ["nonsense", "-7"])
def test_an_unknown_revision_is_refused(url: str, revision: str) -> None:
    run = migrate(url, revision)

    assert (run.returncode, run.stdout, tables(url)) == (1, "", set())
    assert run.stderr.startswith(f"The schema can't be taken to {revision}: ")
    assert "Traceback" not in run.stderr


def test_a_database_that_can_not_be_reached_is_reported() -> None:
    run = migrate("postgresql://nobody@127.0.0.1:1/nothing")

    assert run.returncode == 1
    assert "can't be reached" in run.stderr and "Traceback" not in run.stderr
