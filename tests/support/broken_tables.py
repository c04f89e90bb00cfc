"""Tables that make statements fail: with an error that no code expects, or as in a database that is not migrated."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from tests.support.builders import Db


@contextmanager
def failing(db: Db, table: str) -> Iterator[None]:
    """Let every insert into a table fail, with an error that names the table, until the block ends."""
    with db.begin() as session:
        session.execute(
            text(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql"
                " AS $$ BEGIN RAISE EXCEPTION 'no row for %', TG_TABLE_NAME; END $$"
            )
        )
        session.execute(text(f"CREATE TRIGGER failing BEFORE INSERT ON {table} EXECUTE FUNCTION fail()"))
    try:
        yield
    finally:
        with db.begin() as session:
            session.execute(text("DROP FUNCTION fail CASCADE"))


@contextmanager
def missing(db: Db, table: str, column: str) -> Iterator[None]:
    """Let a column of a table have another name until the block ends."""
    with db.begin() as session:
        session.execute(text(f"ALTER TABLE {table} RENAME {column} TO misplaced"))
    try:
        yield
    finally:
        with db.begin() as session:
            session.execute(text(f"ALTER TABLE {table} RENAME misplaced TO {column}"))
