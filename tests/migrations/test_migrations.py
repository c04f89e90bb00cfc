"""Migrations: there and back again, to the schema that the code believes in."""

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, func, inspect, make_url, select, text
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from deploy.embedded import PostgreSQL
from domain import outbox, reservations
from domain.idempotency.stored_answers import stored_answers
from domain.items.table import table  # noqa: F401 - they fill the metadata
from domain.runtime.database import SCHEMA_VERSION, metadata
from domain.runtime.settings import ROOT
from tests.support.serving import wait_until_blocked

MIGRATE = ROOT / "bin" / "migrate"

CATALOGUE = {
    "columns": r"""
        SELECT table_name, column_name, data_type, character_maximum_length, is_nullable,
               regexp_replace(column_default, '^''(.+)''::[a-z]+int$', '\1'), is_identity, identity_generation
        FROM information_schema.columns WHERE table_schema = 'public'
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "options": """
        SELECT relname, reloptions::text
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
    """,
}


@pytest.fixture
def url(postgresql: PostgreSQL) -> Iterator[str]:
    """An empty database of its own."""
    name = f"migrations_{uuid4().hex[:8]}"
    yield postgresql.create(name)
    with create_engine(_driver(postgresql.url), isolation_level="AUTOCOMMIT", poolclass=NullPool).connect() as server:
        server.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))


def _driver(url: str) -> str:
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def migrate(url: str, *revision: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url}
    return subprocess.run(
        [MIGRATE, *revision], cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def tables(url: str) -> set[str]:
    return set(inspect(create_engine(_driver(url), poolclass=NullPool)).get_table_names())


def test_there_and_back_and_there_again(url: str) -> None:
    ours = {table.name for table in metadata.sorted_tables}

    assert (migrate(url).returncode, tables(url)) == (0, ours | {"alembic_version"})
    assert (migrate(url, "base").returncode, tables(url)) == (0, {"alembic_version"})
    assert (migrate(url).returncode, tables(url)) == (0, ours | {"alembic_version"})
    assert (migrate(url, "base").returncode, tables(url)) == (0, {"alembic_version"})


def test_every_step_can_be_taken_back_alone(url: str) -> None:
    migrate(url)
    for _ in ScriptDirectory.from_config(_config()).walk_revisions():
        assert migrate(url, "-1").returncode == 0

    assert tables(url) == {"alembic_version"}


def test_migrating_what_is_migrated_changes_nothing(url: str) -> None:
    first, again = migrate(url), migrate(url)

    assert (first.returncode, again.returncode) == (0, 0)
    assert again.stdout == "The schema is up to date.\n"
    assert again.stderr == ""


def test_the_schema_is_the_one_that_the_code_believes_in(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize("what", CATALOGUE)
def test_the_schema_is_the_same_to_the_last_word(url: str, engine: Engine, what: str) -> None:
    """Alembic compares no checks, no conditions of indexes and no options: the catalogue of PostgreSQL has them all."""
    code = create_engine(_driver(url), poolclass=NullPool)
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
    assert all(name.split("_")[0] in {"pk", "uq", "ck", "fk"} for name in names)


def test_the_version_that_the_code_needs_is_the_newest(engine: Engine) -> None:
    assert ScriptDirectory.from_config(_config()).get_heads() == [SCHEMA_VERSION]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == SCHEMA_VERSION


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    return config


def test_two_migrations_at_once_go_one_after_the_other(url: str) -> None:
    db = sessionmaker(create_engine(_driver(url)))
    with ThreadPoolExecutor(2) as elsewhere, db.begin() as session:
        session.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        runs = [elsewhere.submit(migrate, url) for _ in range(2)]
        wait_until_blocked(db, connections=2)
        session.commit()

        assert [run.result().returncode for run in runs] == [0, 0], [run.result().stderr for run in runs]
    db.kw["bind"].dispose()
    assert "reservations" in tables(url)


#: Who holds it, migrates: it is written down in migrations/env.py, which can't be imported.
ADVISORY_LOCK = 6_011_996


def test_a_migration_does_not_wait_long_for_a_lock_and_changes_nothing(url: str) -> None:
    migrate(url)

    with create_engine(_driver(url), poolclass=NullPool).begin() as busy:
        busy.execute(text("LOCK TABLE outbox IN ACCESS SHARE MODE"))
        began = time.monotonic()
        run = migrate(url, "base")

    assert run.returncode == 1
    assert time.monotonic() - began < 30
    assert "lock timeout" in run.stderr and "run it again" in run.stderr
    assert "outbox" in tables(url)
    assert migrate(url, "base").returncode == 0


@pytest.mark.parametrize("revision", ["nonsense", "-7"])
def test_a_revision_that_is_not_there_is_refused(url: str, revision: str) -> None:
    run = migrate(url, revision)

    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert run.stderr


def test_a_database_that_is_not_there_is_said_so() -> None:
    run = migrate("postgresql://nobody@127.0.0.1:1/nothing")

    assert run.returncode == 1
    assert "Traceback" not in run.stderr
