"""What is free: the items of a set of requests, locked, and the time of its calendars that is taken."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from sqlalchemy.orm import Session

from domain import items
from domain.calendars.most_in_use import InUse, most_in_use
from domain.calendars.occupancies import occupied_query, read_occupied
from domain.calendars.periods import Period
from domain.calendars.rules import blocked
from domain.items import Locked
from domain.reservations.decisions import Free, MostInUse, Reserve, Stock
from domain.runtime.pipeline import Query


def lock(
    session: Session, requests: Sequence[Reserve], then: Sequence[Query] = (), *, busy_periods: int
) -> tuple[Free, Locked]:
    """Lock the items of requests that no other transaction has locked, and read what is free of them.

    The queries of `then` are executed after that, in the same round trip. Of busy calendars, it is added up what is in
    use in so many periods.
    """
    periods = [(claim.item, claim.period) for one in requests for claim in one.lines if claim.period is not None]
    if not periods:
        locked = items.lock_free(session, named_by(requests), then)
        return Free(_stock_of(locked)), locked
    query, limits = occupied_query(periods)
    locked = items.lock_free(session, named_by(requests), (*then, query))
    stock = _stock_of(locked)
    occupied, busy = read_occupied(locked.then[-1], limits)
    times = [*islice(_times_of(requests, stock, busy), busy_periods)]
    return Free(stock, occupied, _most_in_use(session, busy, times)), locked


def _times_of(requests: Iterable[Reserve], stock: Stock, busy: Collection[int]) -> Iterator[tuple[int, Period]]:
    """Yield the times that requests would block of busy calendars."""
    for request in requests:
        for claim in request.lines:
            item = stock.get(claim.item)
            if item is not None and claim.period is not None and item.id in busy:
                yield item.id, blocked(item, claim.period)


def _most_in_use(session: Session, busy: Collection[int], times: Sequence[tuple[int, Period]]) -> MostInUse:
    found: dict[int, dict[Period, InUse]] = {item_id: {} for item_id in busy}
    for (item_id, time), in_use in zip(times, most_in_use(session, times), strict=True):
        found[item_id][time] = in_use
    return found


def named_by(requests: Iterable[Reserve]) -> Collection[int | str]:
    """Return the items that requests name, by id or sku."""
    return {claim.item for request in requests for claim in request.lines}


def _stock_of(locked: Locked) -> Stock:
    by_id: Stock = {item.id: item for item in locked.items}
    by_sku: Stock = {item.sku: item for item in locked.items}
    return {**by_id, **by_sku, **dict.fromkeys(locked.elsewhere)}
