"""The cursors of lists: from where on to read the next page. Clients send them back as they got them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from domain.runtime.errors import Invalid

_WRONG = "it must be the next_cursor of a page of the same list"


T = TypeVar("T")


def write_start(start: datetime, its_id: UUID | int) -> str:
    """Return the cursor of a list in order of start."""
    return f"{start.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}_{its_id}"


def read_start(cursor: str, id_of: Callable[[str], T]) -> tuple[datetime, T]:
    """Return the start and the id after which the page begins. Raises Invalid."""
    try:
        start, _, its_id = cursor.partition("_")
        return datetime.strptime(start, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC), id_of(its_id)
    except ValueError as error:
        raise Invalid("cursor", _WRONG) from error


def read_id(cursor: str) -> UUID:
    """Return the id before which the page begins, of a list in order of making. Raises Invalid."""
    try:
        return UUID(cursor)
    except ValueError as error:
        raise Invalid("cursor", _WRONG) from error
