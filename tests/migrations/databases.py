"""Databases for tests of migrations: how they are migrated, by which scripts, and what the catalogue says of them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command as alembic
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from domain.runtime.settings import ROOT

#: The scripts of the product.
MIGRATIONS = ROOT / "migrations"

SCRIPTS = ScriptDirectory(str(MIGRATIONS))

#: All revisions, the newest first.
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()]

#: The revision of a migration that a test adds.
PLANTED = "9999"

CATALOGUE = {
    "columns": r"""
        SELECT table_name, column_name, data_type, character_maximum_length, is_nullable,
               regexp_replace(column_default, '^''(.+)''::[a-z]+int$', '\1'), is_identity, identity_generation
        FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
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


def driver(url: str) -> str:
    """Return the URL of a database as SQLAlchemy takes it."""
    return make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection of its own, whose statements are committed one by one."""
    engine = create_engine(driver(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def read(url: str, statement: str, **parameters: object) -> Sequence[Any]:
    with connected(url) as connection:
        return connection.execute(text(statement), parameters).all()


def catalogue(url: str) -> Mapping[str, set[tuple[Any, ...]]]:
    """Return what the catalogue of a database contains of the schema, without Alembic's own table."""
    return {
        what: {tuple(row) for row in read(url, statement) if row[0] != "alembic_version"}
        for what, statement in CATALOGUE.items()
    }


def before(revision: str) -> str:
    """Return the revision that a migration follows."""
    down = SCRIPTS.get_revision(revision).down_revision
    assert isinstance(down, str)
    return down


def upgrade(url: str, revision: str = "head", scripts: Path = MIGRATIONS) -> None:
    """Migrate in this process."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", url)
        alembic.upgrade(configured(scripts), revision)


def downgrade(url: str, revision: str) -> None:
    """Go back in this process, without the questions of `bin/migrate`."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", url)
        alembic.downgrade(configured(), revision)


def configured(scripts: Path = MIGRATIONS) -> Config:
    """Return the configuration of Alembic for these scripts."""
    config = Config()
    config.set_main_option("script_location", str(scripts))
    return config


def command(url: str, *arguments: str, scripts: Path = MIGRATIONS) -> subprocess.Popen[str]:
    """Start `bin/migrate` with these scripts."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "migrations.main", *arguments],
        cwd="/",
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url, "PYTHONPATH": f"{scripts.parent}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def migrate(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `bin/migrate`."""
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url}
    return subprocess.run(
        [ROOT / "bin" / "migrate", *arguments],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def name_of(url: str) -> str:
    """Return the name of a database."""
    name = make_url(url).database
    assert name
    return name


MIGRATION = '''"""A migration of a test."""

from alembic import op

revision = "{revision}"
down_revision = "{down_revision}"
branch_labels = None
depends_on = None
{declared}


def upgrade() -> None:
{body}


def downgrade() -> None:
    pass
'''


def planted(directory: Path, *, body: str, declared: str = "") -> Path:
    """Copy the scripts to a directory, with one more migration whose `upgrade` has this body. Return where they are."""
    scripts = directory / "migrations"
    shutil.copytree(MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    text = MIGRATION.format(revision=PLANTED, down_revision=REVISIONS[0], declared=declared, body=indented)
    (scripts / "versions" / f"{PLANTED}_planted.py").write_text(text)
    return scripts
