"""The version of the schema: which one this code needs, and whether the one of the database serves this code."""

from typing import NamedTuple

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

#: The migration that this code needs. Revisions are numbers of four digits, in one line.
SCHEMA_VERSION = "0010"


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


def lacks_schema(error: Exception) -> bool:
    """Return whether a statement failed as the schema lacks a table or a column: it does not serve this code."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in MISSING_CODES
