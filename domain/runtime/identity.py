"""Ids that sort by the time of their making: UUID version 7, RFC 9562 §5.7."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Return a fresh id. Its time is this machine's and is compared with nothing."""
    return uuid7()
