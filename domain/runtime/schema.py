"""The schema that this code needs: whether the one of the database has the version for it, and is complete."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from domain.runtime.database import metadata

#: The migration that this code needs. Revisions are numbers of four digits, in one line.
SCHEMA_VERSION = "0021"

#: What is said of a schema that lacks something which its version says is there.
REPAIR = "as after an interrupted bin/migrate back: docs/operating.md says what to do"

#: The codes of PostgreSQL for a table and for a column that do not exist.
MISSING_CODES = frozenset({"42P01", "42703"})


class Schema(NamedTuple):
    """The version of a database's schema, and the oldest version whose code it serves.

    While a release is rolled out, the migrated schema serves the old and the new code. A migration that removes what
    older code needs says so in its `serves_from`.
    """

    version: str
    serves_from: str

    def serves(self, needed: str = SCHEMA_VERSION) -> bool:
        """Return whether code that needs this version runs on the schema."""
        return self.serves_from <= needed <= self.version


def read_schema(session: Session) -> Schema | None:
    """Return the version of the database's schema, or None if it was never migrated."""
    if session.execute(select(func.to_regclass("alembic_version"))).scalar_one() is None:
        return None
    stored = session.execute(_READ).one_or_none()
    return None if stored is None else Schema(*stored)


# A schema that does not say whose code it serves is taken to serve its own alone.
_READ = text("""
    SELECT version_num, coalesce(to_jsonb(alembic_version) ->> 'serves_from', version_num)
    FROM alembic_version
""")


def is_migrated(session: Session) -> bool:
    """Return whether the schema serves this code: it is at least as new as this code, and removed nothing of it."""
    schema = read_schema(session)
    return schema is not None and schema.serves()


def missing(session: Session) -> Sequence[str]:
    """Return the tables and columns of this code that the database lacks, whatever its version says.

    That is so after an interrupted downgrade or a mistake by hand. It takes one statement of about a millisecond, which
    waits for no lock. Only tables whose modules were imported are looked for.
    """
    found: dict[str, set[str]] = {}
    for table, column in session.execute(_COLUMNS, {"tables": list(metadata.tables)}):
        found.setdefault(table, set()).add(column)
    return sorted(_missing(found))


def _missing(found: dict[str, set[str]]) -> Iterator[str]:
    for name, table in metadata.tables.items():
        if name not in found:
            yield name
        else:
            yield from (f"{name}.{column.name}" for column in table.columns if column.name not in found[name])


_COLUMNS = text("""
    SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relname = ANY(:tables) AND pg_table_is_visible(attrelid)
""")


def lacks_schema(error: Exception) -> bool:
    """Return whether a statement failed as the schema lacks a table or a column: it does not serve this code."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in MISSING_CODES
