"""Who acts, and ids that sort by the time of their making: UUID version 7, RFC 9562 §5.7."""

import os
import pwd
import random
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

#: No id is below the first of these, and none is at or above the second.
LOWEST_ID, HIGHEST_ID = UUID(int=0), UUID(int=2**128 - 1)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: The version and the variant of an id, in their places.
_VERSION, _VARIANT = 7 << 76, 0b10 << 62

#: The largest random step from one id of a moment to the next, in bits.
_STEP_BITS = 32

#: Of a user name, in characters.
_LONGEST_USER = 64

#: The first id of a moment leaves room for half a billion steps below the 62 random bits of an id.
_FIRST_BITS = 61


def new_id() -> UUID:
    """Return a fresh id. Its time is this machine's and is compared with nothing."""
    return uuid7()


def new_ids(moment: datetime) -> Iterator[UUID]:
    """Make fresh ids of that moment, each higher than the one before.

    They sort by `moment` to the microsecond: pass the database's time, so that the ids of all processes sort alike.
    """
    lowest = lowest_id(moment).int
    place = secrets.randbits(_FIRST_BITS)
    while True:
        yield UUID(int=lowest + place)
        place += 1 + random.getrandbits(_STEP_BITS)


def lowest_id(moment: datetime) -> UUID:
    """Return the id below all ids of that moment and of later ones, and above those of earlier moments.

    The milliseconds are followed by the part of a millisecond in 12 bits: RFC 9562 §6.2, method 3.
    """
    milliseconds, microseconds = divmod(max((moment - _EPOCH) // _MICROSECOND, 0), 1_000)
    return UUID(int=milliseconds << 80 | _VERSION | (microseconds * 4_096 // 1_000) << 64 | _VARIANT)


def user_at_host() -> str:
    """Return who runs this process, for the audit: by its user id, and who has called sudo, if somebody has."""
    user_id = os.getuid()
    user = f"uid {user_id}"
    with suppress(KeyError):
        user = pwd.getpwuid(user_id).pw_name
    caller = os.environ.get("SUDO_USER", "").strip()[:_LONGEST_USER]
    return f"{user}@{socket.gethostname()}{f' (sudo by {caller})' if caller else ''}"
