"""Shortages: when too little is free for a request, overdue holds are expired, as far as that helps."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from uuid import UUID

from sqlalchemy.orm import Session

from domain.calendars.occupancies import Occupancies
from domain.calendars.rules import blocked
from domain.items import Item
from domain.outbox import Routes
from domain.reservations import free
from domain.reservations.decisions import Accepted, Decision, Deferred, Free, Reserve, Stock
from domain.reservations.expiry import TAKE_BACK_LIMIT, expire_these, overdue_units, take_back
from domain.runtime.errors import SoldOut


@dataclass(frozen=True, slots=True)
class Effort:
    """How many overdue holds a set may count for each item, and how many of stock and of calendars it may expire each.

    A request that lacks more than `lacking` units is deferred, and no hold is expired for it. So many `busy_periods`
    of calendars of which much is taken are decided. None is no limit.
    """

    count: int | None
    expire: int
    lacking: float
    busy_periods: int


#: For a set of requests for many items: it keeps none of them waiting for long.
BRIEF = Effort(count=1_000, expire=20, lacking=20, busy_periods=0)

#: For requests that a brief set has deferred. A request that lacks more units than one set expires takes several sets.
THOROUGH = Effort(count=None, expire=TAKE_BACK_LIMIT, lacking=inf, busy_periods=16)


def relieve(
    session: Session,
    requests: Sequence[Reserve],
    decisions: Sequence[Decision],
    found: Free,
    routes: Routes,
    effort: Effort,
) -> tuple[Free, Mapping[int, float]] | None:
    """Expire overdue holds where that helps those who were not accepted.

    Return None if nobody lacks stock and no lapsed hold is in the way of anybody. Otherwise return what is free after
    that, and the units of stock that other overdue holds still keep, by the id of the item.
    """
    shortages = _shortages(requests, decisions, found.stock)
    lapsed = _in_the_way(requests, decisions, found)
    if not shortages and not lapsed:
        return None
    overdue = overdue_units(session, shortages, effort.count) if shortages else {}
    wanted = {
        item_id: shortage.all
        for item_id, shortage in shortages.items()
        if shortage.smallest <= min(overdue.get(item_id, 0), effort.lacking)
    }
    expired = take_back(session, wanted, routes, limit=effort.expire)
    expired += expire_these(session, sorted(lapsed)[: effort.expire], routes)
    if expired == 0:
        return found, overdue
    after, _ = free.lock(session, requests, busy_periods=effort.busy_periods)
    return after, _still_kept(overdue, found.stock, after.stock)


def _still_kept(overdue: Mapping[int, float], before: Stock, after: Stock) -> Mapping[int, float]:
    available = {item.id: item.available_quantity for item in before.values() if item}
    return {
        item.id: overdue[item.id] - (item.available_quantity - available[item.id])
        for item in after.values()
        if item and item.id in overdue
    }


def _in_the_way(requests: Sequence[Reserve], decisions: Sequence[Decision], found: Free) -> Collection[UUID]:
    """Return the reservations whose lapsed holds overlap the time that deferred requests would block."""
    if not any(one.is_lapsed for occupied in found.occupied.values() for one in occupied):
        return ()
    deferred = [request for request, one in zip(requests, decisions, strict=True) if isinstance(one, Deferred)]
    return {found_id for request in deferred for found_id in _lapsed(request, found.stock, found.occupied)}


def _lapsed(request: Reserve, stock: Stock, occupied: Occupancies) -> Iterator[UUID]:
    for claim in request.lines:
        item = stock.get(claim.item)
        if item is not None and claim.period is not None:
            wanted = blocked(item, claim.period)
            for one in occupied.get(item.id, ()):
                if one.is_lapsed and one.overlaps(wanted):
                    yield one.reservation_id


@dataclass(frozen=True, slots=True)
class _Shortage:
    """The units that an item lacks for all of its requests, and those that it lacks for the smallest refused one."""

    all: int
    smallest: int


def _shortages(requests: Sequence[Reserve], decisions: Sequence[Decision], stock: Stock) -> Mapping[int, _Shortage]:
    """Return the shortages of items, by id. A request for more than was ever in stock is left out: it never fits."""
    if not any(isinstance(decision, SoldOut) for decision in decisions):
        return {}
    asked: Counter[int] = Counter()
    refused: dict[int, int] = {}
    for request, decision in zip(requests, decisions, strict=True):
        claimed = _claimed(request, stock) if isinstance(decision, Accepted | SoldOut) else ()
        for item, quantity in claimed:
            asked[item.id] += quantity
            if isinstance(decision, SoldOut):
                refused[item.id] = min(quantity, refused.get(item.id, quantity))
    available = {item.id: item.available_quantity for item in stock.values() if item}
    shortages = {
        item_id: _Shortage(all=asked[item_id] - available[item_id], smallest=smallest - available[item_id])
        for item_id, smallest in refused.items()
    }
    # Of the items of a refused request, some have enough.
    return {item_id: shortage for item_id, shortage in shortages.items() if shortage.all > 0}


def _claimed(request: Reserve, stock: Stock) -> Sequence[tuple[Item, int]]:
    """Return the items of a request with their quantities, or none if it is for more than was ever in stock."""
    claimed = [(item, claim.quantity) for claim in request.lines if (item := stock.get(claim.item))]
    return () if any(quantity > item.stock_quantity for item, quantity in claimed) else claimed
