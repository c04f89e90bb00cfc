"""The version of the schema: which one this code needs, and whether the database has it."""

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

#: The migration that this code needs.
SCHEMA_VERSION = "0003"


def is_migrated(session: Session) -> bool:
    """Return whether the schema is the one that this code was written for."""
    if session.execute(select(func.to_regclass("alembic_version"))).scalar_one() is None:
        return False
    return session.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none() == SCHEMA_VERSION
