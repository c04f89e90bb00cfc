"""Tables that make statements fail: with an error that no code expects, or as in a database that is not migrated."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import text

from tests.support.builders import Db


@contextmanager
def altered(db: Db, *changes: str, back: str) -> Iterator[None]:
    """Make changes to the schema, and take them back when the block ends."""
    with db.begin() as session:
        for change in changes:
            session.execute(text(change))
    try:
        yield
    finally:
        with db.begin() as session:
            session.execute(text(back))


def failing(db: Db, table: str) -> AbstractContextManager[None]:
    """Let every insert into a table fail, with an error that names the table, until the block ends."""
    return altered(
        db,
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'no row for %', TG_TABLE_NAME; END $$",
        f"CREATE TRIGGER failing BEFORE INSERT ON {table} EXECUTE FUNCTION fail()",
        back="DROP FUNCTION fail CASCADE",
    )


def missing(db: Db, table: str, column: str | None = None) -> AbstractContextManager[None]:
    """Let a table, or a column of it, have another name until the block ends."""
    if column is None:
        return altered(db, f"ALTER TABLE {table} RENAME TO misplaced", back=f"ALTER TABLE misplaced RENAME TO {table}")
    renaming = f"ALTER TABLE {table} RENAME"
    return altered(db, f"{renaming} {column} TO misplaced", back=f"{renaming} misplaced TO {column}")
