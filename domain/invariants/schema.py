"""The first of all invariants: without the schema of this release, the others can't be checked."""

from sqlalchemy.orm import Session

from domain.invariants.invariant import NAMED, Finding
from domain.runtime.schema import REPAIR, SCHEMA_VERSION, missing, read_schema

TITLE = "the database is migrated for this release"

MIGRATE = "Run bin/migrate. Nothing else was checked."
USE_THE_NEWER = "A newer release has migrated it: use bin/doctor of that release. Nothing else was checked."
INCOMPLETE = f"These tables and columns are missing, {REPAIR}. Nothing else was checked."


def check(session: Session) -> Finding:
    schema = read_schema(session)
    if schema is not None and schema.serves():
        lacking = missing(session)
        return Finding(TITLE, len(lacking), lacking[:NAMED], INCOMPLETE if lacking else "")
    advice = MIGRATE if schema is None or schema.version < SCHEMA_VERSION else USE_THE_NEWER
    return Finding(TITLE, 1, (f"it is at {schema.version if schema else 'base'}",), advice)
