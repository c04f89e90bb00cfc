"""The errors of PostgreSQL: which of them pass by themselves, and what the others say."""

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from domain.runtime.errors import Busy, DatabaseUnavailable, Unavailable

#: A lock time-out, a deadlock, a serialization failure, a statement that took too long.
LOCK_NOT_AVAILABLE = "55P03"
BUSY_CODES = frozenset({LOCK_NOT_AVAILABLE, "40P01", "40001", "57014"})

#: What a standby answers to whoever takes it for the primary.
STANDBY = "25006"

#: Connections, resources (a full disk and memory among them), a disk that fails, shutdown and start-up, and a standby
#: in the primary's place.
DOWN_CODES = ("08", "53", "58", "57P", STANDBY)


def code_of(error: DBAPIError) -> str | None:
    """Return PostgreSQL's code of an error, if the error is PostgreSQL's."""
    code: str | None = getattr(error.orig, "sqlstate", None)
    return code


def is_lock_timeout(error: OperationalError) -> bool:
    """Return whether a statement waited for a lock for too long."""
    return code_of(error) == LOCK_NOT_AVAILABLE


def constraint_of(error: IntegrityError) -> str | None:
    """Return the name of the constraint that a statement broke."""
    diagnosis = getattr(error.orig, "diag", None)
    name: str | None = getattr(diagnosis, "constraint_name", None)
    return name


def trouble(error: Exception) -> Unavailable | None:
    """Return Busy or DatabaseUnavailable for an error that passes by itself, None for any other error.

    Source: PostgreSQL's table of error codes, by class.
    """
    if isinstance(error, PoolTimeout):
        return Busy()
    if not isinstance(error, DBAPIError):
        return None
    code = code_of(error) or ""
    if code in BUSY_CODES:
        return Busy()
    if (
        error.connection_invalidated
        or code.startswith(DOWN_CODES)
        or (isinstance(error, OperationalError) and not code)
    ):
        return DatabaseUnavailable()
    return None


def is_standby(error: DBAPIError) -> bool:
    """Return whether a statement failed because it would write, and PostgreSQL is a standby."""
    return code_of(error) == STANDBY
