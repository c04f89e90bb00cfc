"""The lifecycle of a reservation: one table of the changes that are allowed, and what follows from it."""

from collections.abc import Mapping
from enum import StrEnum

from domain.runtime.errors import WrongStatus


class Status(StrEnum):
    """The status of a reservation, stored and shown in upper case."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    CHECKED_IN = "CHECKED_IN"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    NO_SHOW = "NO_SHOW"
    BLOCKED = "BLOCKED"


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.CONFIRMED, Status.REJECTED, Status.CANCELLED, Status.EXPIRED}),
    Status.CONFIRMED: frozenset({Status.CHECKED_IN, Status.COMPLETED, Status.CANCELLED, Status.NO_SHOW}),
    Status.CHECKED_IN: frozenset({Status.COMPLETED, Status.CANCELLED}),
    Status.BLOCKED: frozenset({Status.CANCELLED}),
}

#: In these statuses the units of a reservation are not available to anyone else.
HOLDING = frozenset({Status.PENDING, Status.CONFIRMED, Status.CHECKED_IN, Status.BLOCKED})

#: In these statuses the units are used up for good.
CONSUMING = frozenset({Status.COMPLETED})

#: In all other statuses the units have been given back.
RELEASING = frozenset(Status) - HOLDING - CONSUMING


def check(current: Status, to: Status) -> None:
    """Raise WrongStatus unless a reservation may go from `current` to `to`."""
    if to not in TRANSITIONS.get(current, frozenset()):
        raise WrongStatus(status=current, to=to)
