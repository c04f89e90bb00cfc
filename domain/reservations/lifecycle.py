"""The lifecycle of a reservation: tables of the changes that are allowed, and what follows from them."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from enum import StrEnum


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


class Kind(StrEnum):
    """What an entry of the history notes. Earlier releases noted the making as `status`, without a `from_status`."""

    CREATED = "created"
    STATUS = "status"
    EXTENDED = "extended"
    CHANGED = "changed"


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

#: In these, time of a calendar is free again. If a guest did not come, the room was kept all the same.
FREEING = RELEASING - {Status.NO_SHOW}

#: The fields that may be changed, and in which statuses. A reservation that has ended stays as it is.
CHANGEABLE: Mapping[str, frozenset[Status]] = {
    "expires_at": frozenset({Status.PENDING}),
    "note": HOLDING,
    "starts_at": HOLDING,
    "ends_at": HOLDING,
    "quantity": HOLDING,
    # Those of bookings, which are kept elsewhere.
    "guest": HOLDING,
    "internal_notes": HOLDING,
}

#: The longest life of a hold, from when it was made, however often it is extended: a client that forgets its holds
#: does not keep stock from others for longer.
MAX_HOLD = timedelta(days=7)


def allows(current: Status, to: Status | None, fields: Collection[str] = ()) -> bool:
    """Return whether a reservation may go from `current` to `to`, and whether these fields may be changed.

    Without `to` the status stays as it is.
    """
    may_go = to is None or to in TRANSITIONS.get(current, ())
    return may_go and all(current in CHANGEABLE[name] for name in fields)
