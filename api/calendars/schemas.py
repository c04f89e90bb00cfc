"""The shapes of what is reserved of calendars, beside reservations."""

import msgspec

from api.reservations.schemas import Instant, Note, Quantity


class NewBlock(msgspec.Struct, forbid_unknown_fields=True):
    """Time of a calendar that nobody may reserve, from `start` until just before `end`: all units, or `quantity`."""

    start: Instant
    end: Instant
    quantity: Quantity | None = None
    note: Note | None = None
