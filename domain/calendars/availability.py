"""How much of calendars is free over time, as it is by now. Reading it locks nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy.orm import Session

from domain.calendars.free_time import Step, free_starts, steps
from domain.calendars.periods import Period
from domain.calendars.rules import blocked, zone
from domain.calendars.timelines import PACKED, read_packed, timeline_of
from domain.items import Item, Kind, named
from domain.runtime.database import read_by_index
from domain.runtime.errors import Invalid

#: A quarter of a year, with the clock put back in it. Nobody looks at more of a calendar at once.
MAX_WINDOW = timedelta(days=93)

#: Of several calendars together: a hundred for a week, or 24 for a month.
MAX_TOTAL = 8 * MAX_WINDOW

#: So many different times may be taken in the window, of all calendars together: an answer of 4 MB follows from them.
MAX_TAKEN = 20_000

#: So many starts are tried at most, of all calendars together: each five minutes of a month.
MAX_STARTS = 10_000

MINUTE = timedelta(minutes=1)
ONE_DAY = timedelta(days=1)


class Starts(NamedTuple):
    """What is asked for besides free units: when `quantity` units are free for a `duration`. See `free_starts`."""

    quantity: int
    duration: timedelta
    every: timedelta


class Availability(NamedTuple):
    """The free units of a calendar, step by step, and the free starts, if there was a question for them."""

    item: Item
    steps: Sequence[Step]
    starts: Sequence[datetime] | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the availability of calendars within a window follows from, as it was at one moment."""

    items: Sequence[Item]
    window: Period
    #: What is in use of each of them, by id. See `timelines`.
    packed: Mapping[int, bytes]

    @property
    def mark(self) -> bytes:
        """What differs between any two snapshots, unless they are equal."""
        packed = [self.packed[item.id] for item in self.items]
        mark = sha256(repr((self.window, self.items, [*map(len, packed)])).encode())
        for one in packed:
            mark.update(one)
        return mark.digest()

    def availability(self, wanted: Starts | None = None) -> list[Availability]:
        """Return what is free of each of the calendars, in their order."""
        return [_availability(item, self.window, self.packed[item.id], wanted) for item in self.items]


def snapshot(session: Session, names: Sequence[int | str], window: Period, wanted: Starts | None = None) -> Snapshot:
    """Read all that the availability of the calendars of these names, ids or skus, follows from.

    Raises UnknownItem, and Invalid if the window, or what is wanted of it, is too much.
    """
    read_by_index(session)
    items = named(session, names)
    _require_calendars(items)
    _require_limits(len(items), window, wanted)
    packed = read_packed(session, {item.id: blocked(item, window) for item in items})
    if sum(map(len, packed.values())) > MAX_TAKEN * PACKED.size:
        raise Invalid(
            "end", f"more than {MAX_TAKEN} times are taken until then; ask for a shorter time or fewer calendars"
        )
    return Snapshot(items, window, packed)


def _require_calendars(items: Sequence[Item]) -> None:
    for item in items:
        if item.kind != Kind.CALENDAR:
            raise Invalid("item_id", f"{item.sku} is stock, which has no free time")


def _require_limits(number: int, window: Period, wanted: Starts | None) -> None:
    if window.duration > MAX_WINDOW:
        raise Invalid("end", f"it must be at most {MAX_WINDOW.days} days after start")
    if number * window.duration > MAX_TOTAL:
        raise Invalid("end", f"{number} calendars can be looked at for {MAX_TOTAL / number / ONE_DAY:.4g} days at most")
    if wanted is None:
        return
    if wanted.duration <= timedelta():
        raise Invalid("duration", "it must be longer than nothing")
    if wanted.every < MINUTE:
        raise Invalid("step", "it must be a minute or more")
    if number * window.duration / wanted.every > MAX_STARTS:
        raise Invalid("step", f"there would be more than {MAX_STARTS} starts in that time; give a longer one")


def _availability(item: Item, window: Period, packed: bytes, wanted: Starts | None) -> Availability:
    found = steps(item, window, timeline_of(packed))
    if wanted is None:
        return Availability(item, found, None)
    starts = free_starts(found, wanted.quantity, wanted.duration, wanted.every, zone(item))
    return Availability(item, found, list(starts))
