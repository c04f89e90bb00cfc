"""Explaining why time of a calendar is not free, and what is free instead."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy.orm import Session

from domain import items
from domain.calendars import occupancies
from domain.calendars.alternatives import other_times, searched
from domain.calendars.capacity import Occupied, Timeline
from domain.calendars.free_time import free_throughout
from domain.calendars.occupancies import Occupancy, occupied_query, read_occupied
from domain.calendars.periods import Period
from domain.calendars.rules import blocked
from domain.items import Item
from domain.runtime.database import now
from domain.runtime.errors import Alternative, InTheWay, NotFree
from domain.runtime.pipeline import execute

#: The first of more conflicts are shown: a client chooses another time, whatever else is in the way.
MAX_CONFLICTS = 20

MAX_ALTERNATIVES = 3

#: So many other items of the venue are looked at.
MAX_OTHER_ITEMS = 50


class Explanation(NamedTuple):
    """What is in the way, in order of time, and what can be reserved instead, the nearest first."""

    conflicts: Sequence[InTheWay]
    alternatives: Sequence[Alternative]


def explain(session: Session, refused: NotFree) -> Explanation:
    """Return why a period is not free, and what is, as it is by now. It locks nothing. Raises UnknownItem."""
    item = items.get(session, refused.sku)
    wanted = Period(refused.start, refused.end)
    conflicts = occupancies.in_the_way(session, item.id, blocked(item, wanted), MAX_CONFLICTS)
    return Explanation(conflicts, _alternatives(session, item, wanted, refused.asked))


def _alternatives(session: Session, item: Item, wanted: Period, quantity: int) -> list[Alternative]:
    """Return the nearest of each kind, and more of other times if there are fewer than three kinds."""
    times = _other_times(session, item, wanted, quantity)
    found = [*times[:1], *_other_item(session, item, wanted, quantity), *_smaller_quantity(session, item, wanted)]
    return [*found, *times[1:]][:MAX_ALTERNATIVES]


def _other_times(session: Session, item: Item, wanted: Period, quantity: int) -> list[Alternative]:
    moment = now(session)
    window = searched(wanted, moment)
    if window is None:
        return []
    timeline = _timeline(_occupied(session, [item], window).get(item.id, ()))
    periods = other_times(item, wanted, quantity, timeline, not_before=moment, limit=MAX_ALTERNATIVES)
    return [Alternative(item.sku, period.start, period.end, quantity) for period in periods]


def _other_item(session: Session, item: Item, wanted: Period, quantity: int) -> list[Alternative]:
    """Return the first other calendar of the same venue that is free for the period."""
    others = items.of_venue(session, item.venue, but=item.id, limit=MAX_OTHER_ITEMS) if item.venue else ()
    occupied = _occupied(session, others, wanted) if others else {}
    for other in others:
        if free_throughout(other, wanted, _timeline(occupied.get(other.id, ()))) >= quantity:
            return [Alternative(other.sku, wanted.start, wanted.end, quantity)]
    return []


def _smaller_quantity(session: Session, item: Item, wanted: Period) -> list[Alternative]:
    free = free_throughout(item, wanted, _timeline(_occupied(session, [item], wanted).get(item.id, ())))
    return [Alternative(item.sku, wanted.start, wanted.end, free)] if free else []


def _occupied(session: Session, of: Iterable[Item], time: Period) -> occupancies.Occupancies:
    (rows,) = execute(session, [occupied_query((item.id, time) for item in of)])
    return read_occupied(rows)


def _timeline(occupied: Iterable[Occupancy]) -> Timeline:
    """Return what is in use. The time of lapsed holds is free for whoever reserves it."""
    in_use = (one for one in occupied if not one.is_lapsed)
    return Timeline(Occupied(one.blocked_from, one.blocked_until, one.units) for one in in_use)
