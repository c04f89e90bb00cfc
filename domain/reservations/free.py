"""What is free: the items of a set of requests, locked, and the time of its calendars that is taken."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from domain import items
from domain.calendars.occupancies import Occupancies, occupied_query, read_occupied
from domain.items import Locked
from domain.reservations.decisions import Reserve, Stock
from domain.runtime.pipeline import Query


@dataclass(frozen=True, slots=True)
class Free:
    """The items that requests name, and what is taken of those that are calendars.

    Of the calendars whose ids are `partial`, more may be taken than was read.
    """

    stock: Stock
    occupied: Occupancies
    partial: Collection[int] = ()


def lock(
    session: Session, requests: Sequence[Reserve], then: Sequence[Query] = (), *, limit: int | None
) -> tuple[Free, Locked]:
    """Lock the items of requests that no other transaction has locked, and read what is free of them.

    The queries of `then` are executed after that, in the same round trip. For the limit see `occupied_query`.
    """
    periods = [(claim.item, claim.period) for one in requests for claim in one.lines if claim.period is not None]
    if not periods:
        locked = items.lock_free(session, named_by(requests), then)
        return Free(_stock_of(locked), {}), locked
    query, most = occupied_query(periods, limit)
    locked = items.lock_free(session, named_by(requests), (*then, query))
    occupied = read_occupied(locked.then[-1])
    partial = {item_id for item_id, found in occupied.items() if len(found) >= most}
    return Free(_stock_of(locked), occupied, partial), locked


def named_by(requests: Iterable[Reserve]) -> Collection[int | str]:
    """Return the items that requests name, by id or sku."""
    return {claim.item for request in requests for claim in request.lines}


def _stock_of(locked: Locked) -> Stock:
    by_id: Stock = {item.id: item for item in locked.items}
    by_sku: Stock = {item.sku: item for item in locked.items}
    return {**by_id, **by_sku, **dict.fromkeys(locked.elsewhere)}
