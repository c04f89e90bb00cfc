"""The version of the schema: a database serves this code if it is new enough and has kept what this code needs."""

import pytest
from sqlalchemy import text

from domain.runtime.schema import SCHEMA_VERSION, Schema, is_migrated, missing, read_schema
from tests.support.builders import Db


@pytest.mark.parametrize(
    ("version", "serves_from", "serves"),
    [
        ("0005", "0005", True),
        ("0005", "0001", True),
        ("0006", "0001", True),
        ("0006", "0005", True),
        ("0010", "0005", True),
        ("0006", "0006", False),
        ("0010", "0006", False),
        ("0004", "0001", False),
        ("0004", "0004", False),
    ],
)
def test_a_schema_serves_code_that_is_no_newer_and_not_too_old(version: str, serves_from: str, serves: bool) -> None:
    assert Schema(version, serves_from).serves("0005") is serves


def test_a_migrated_database_serves_this_code(db: Db) -> None:
    with db() as session:
        assert is_migrated(session)
        schema = read_schema(session)

    assert schema is not None and schema.version == SCHEMA_VERSION


def test_the_next_migration_does_not_end_the_service_unless_it_removes_what_this_code_needs(db: Db) -> None:
    with db() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9998'"))
        assert is_migrated(session)
        session.execute(text("UPDATE alembic_version SET version_num = '9999', serves_from = '9999'"))
        assert not is_migrated(session)


def test_a_database_that_is_not_migrated_far_enough_does_not_serve_this_code(db: Db) -> None:
    with db() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0000', serves_from = '0000'"))
        assert not is_migrated(session)
        session.execute(text("DELETE FROM alembic_version"))
        assert not is_migrated(session)
        session.execute(text("DROP TABLE alembic_version"))
        assert not is_migrated(session)


@pytest.mark.parametrize(("version", "serves"), [(SCHEMA_VERSION, True), ("9999", False), ("0000", False)])
@pytest.mark.parametrize(
    "removed", ["UPDATE alembic_version SET serves_from = NULL", "ALTER TABLE alembic_version DROP COLUMN serves_from"]
)
def test_a_database_that_does_not_say_whose_code_it_serves_serves_that_of_its_version(
    db: Db, removed: str, version: str, serves: bool
) -> None:
    with db() as session:
        session.execute(text(removed))
        session.execute(text("UPDATE alembic_version SET version_num = :version"), {"version": version})

        assert is_migrated(session) is serves


def test_missing_tables_and_columns_are_named(db: Db) -> None:
    with db() as session:
        assert missing(session) == []
        session.execute(text("DROP TABLE feed_events"))
        session.execute(text("ALTER TABLE items DROP COLUMN venue, DROP COLUMN capacity CASCADE, ADD COLUMN more int"))
        assert missing(session) == ["feed_events", "items.capacity", "items.venue"]
