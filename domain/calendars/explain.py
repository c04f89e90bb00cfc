"""Explaining why time of a calendar is not free, and what is free instead."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from domain import items
from domain.calendars import occupancies
from domain.calendars.alternatives import SEARCH, other_times, searched
from domain.calendars.capacity import Timeline
from domain.calendars.free_time import free_throughout
from domain.calendars.periods import Period
from domain.calendars.rules import blocked
from domain.calendars.timelines import read_timelines
from domain.items import Item
from domain.runtime.database import now, read_by_index
from domain.runtime.errors import Alternative, InTheWay, NotFree

#: The first of more conflicts are shown: a client chooses another time, whatever else is in the way.
MAX_CONFLICTS = 20

MAX_ALTERNATIVES = 3

#: So many other items of the venue are looked at.
MAX_OTHER_ITEMS = 50

#: Other times are looked for nearby first. Most are found there, and a busy calendar has much to read within `SEARCH`.
REACHES = timedelta(days=1), SEARCH


#: Reads what is in use of calendars, by id, each within its time.
Read = Callable[[Mapping[int, Period]], Mapping[int, Timeline]]


class Explanation(NamedTuple):
    """What is in the way, in order of time, and what can be reserved instead: the nearest of each kind first.

    The kinds are another time, another item of the venue, and fewer units.
    """

    conflicts: Sequence[InTheWay]
    alternatives: Sequence[Alternative]


def explain(session: Session, refused: NotFree, *, but: UUID | None = None) -> Explanation:
    """Return why a period is not free, and what is, as it is by now. It locks nothing. Raises UnknownItem.

    What the reservation `but` has counts as free: it is the one that was to be changed. If it has several lines, there
    are no alternatives, which are for one calendar.
    """
    read_by_index(session)
    item = items.get(session, refused.sku)
    wanted = Period(refused.start, refused.end)
    conflicts = occupancies.in_the_way(session, item.id, blocked(item, wanted), MAX_CONFLICTS, but=but)
    if but is not None and occupancies.lines(session, but) > 1:
        return Explanation(conflicts, [])
    read = partial(read_timelines, session, but=but)
    return Explanation(conflicts, _alternatives(session, read, item, wanted, refused.asked))


def _alternatives(session: Session, read: Read, item: Item, wanted: Period, quantity: int) -> list[Alternative]:
    """Return the nearest of each kind, and more of other times if there are fewer than three kinds."""
    times = _other_times(session, read, item, wanted, quantity)
    found = [*times[:1], *_at_the_same_time(session, read, item, wanted, quantity), *times[1:]]
    return found[:MAX_ALTERNATIVES]


def _other_times(session: Session, read: Read, item: Item, wanted: Period, quantity: int) -> list[Alternative]:
    """Return other times of the item or, if it has become free just now, the wanted time as the first of them."""
    moment = now(session)
    periods: list[Period] = []
    for reach in REACHES:
        window = searched(wanted, moment, reach)
        if window is not None and len(periods) < MAX_ALTERNATIVES:
            timeline = read({item.id: blocked(item, window)})[item.id]
            periods = other_times(item, wanted, quantity, timeline, window, MAX_ALTERNATIVES)
    return [Alternative(item.sku, period.start, period.end, quantity) for period in periods]


def _at_the_same_time(session: Session, read: Read, item: Item, wanted: Period, quantity: int) -> list[Alternative]:
    """Return the first other calendar of the venue that has enough units, and the most units of the item itself."""
    others = items.of_venue(session, item.venue, but=item.id, limit=MAX_OTHER_ITEMS) if item.venue else ()
    timelines = read({one.id: blocked(one, wanted) for one in (item, *others)})
    free = {one.sku: free_throughout(one, wanted, timelines[one.id]) for one in (item, *others)}
    fewer = free.pop(item.sku)
    found = [Alternative(sku, wanted.start, wanted.end, quantity) for sku, units in free.items() if units >= quantity]
    return [*found[:1], *([Alternative(item.sku, wanted.start, wanted.end, fewer)] if 0 < fewer < quantity else [])]
