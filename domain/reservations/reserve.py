"""Reserving stock: many requests at once, under the locks of their items."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import inf
from types import MappingProxyType
from typing import Any
from uuid import UUID

from sqlalchemy import Text, insert, select
from sqlalchemy.orm import Session

from domain import idempotency, items, outbox
from domain.idempotency import Answered, Key, StoredAnswer
from domain.items import Item
from domain.outbox import Routes
from domain.reservations import events
from domain.reservations.expiry import TAKE_BACK_LIMIT, overdue_units, take_back
from domain.reservations.lifecycle import Status
from domain.reservations.table import Reservation, history, reservations
from domain.reservations.transition import SYSTEM
from domain.runtime.database import as_json, records
from domain.runtime.errors import IdempotencyKeyReused, Refusal, SoldOut, UnknownItem
from domain.runtime.identity import new_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """A request to hold `quantity` units of the item with that id or, if it is text, that sku."""

    item: int | str
    quantity: int
    hold_for: timedelta
    key: Key | None = None
    payload_hash: str = ""
    guest_id: str | None = None
    note: str | None = None
    metadata: str | None = None
    source: str = "api"
    changed_by: str = SYSTEM
    #: Makes the answer, in the format of whoever sent the request. It is stored under the key.
    render: Callable[[Reservation], str]
    headers: dict[str, str] = field(default_factory=dict)


class KeyRace(Exception):
    """Raised when keys raced with requests for other items. Roll back, and decide these requests in another set."""

    def __init__(self, places: Collection[int]) -> None:
        super().__init__(f"{len(places)} keys were stored by another transaction meanwhile")
        self.places = places


@dataclass(frozen=True, slots=True)
class Deferred:
    """It can't be decided at once: its item is locked, or has more overdue holds than one set may expire."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The stock allows it."""

    item: Item


@dataclass(frozen=True, slots=True)
class Duplicate:
    """It repeats the request at this place in the set, and shares its answer."""

    of: int


Decision = Accepted | Duplicate | Answered | Refusal | Deferred


@dataclass(frozen=True, slots=True)
class Effort:
    """How many overdue holds a set may count for each item, and expire in all. None is no limit.

    A request that lacks more than `lacking` units is deferred, and no hold is expired for it.
    """

    count: int | None
    expire: int
    lacking: float


#: For a set of requests for many items: it keeps none of them waiting for long.
BRIEF = Effort(count=1_000, expire=20, lacking=20)

#: For requests that a brief set has deferred. A request that lacks more units than one set expires takes several sets.
THOROUGH = Effort(count=None, expire=TAKE_BACK_LIMIT, lacking=inf)


def reserve(
    session: Session,
    requests: Sequence[Reserve],
    routes: Routes,
    *,
    effort: Effort = THOROUGH,
) -> Sequence[Answered | Refusal | Deferred]:
    """Make the holds that the stock allows, in order of arrival, and answer each request.

    A refusal makes no reservation, but overdue holds of its item may be expired. It waits for no lock of an item.
    Raises KeyRace.
    """
    stock, moment = _lock(session, requests)
    # After the locks: a duplicate asks for the same item, so its answer is committed and seen by now.
    answered = idempotency.lookup(session, {request.key for request in requests if request.key})
    decisions = decide(requests, stock, answered)
    shortages = _shortages(requests, decisions, stock)
    if shortages:
        stock, overdue = _take_back(session, requests, stock, shortages, routes, effort)
        decisions = decide(requests, stock, answered, overdue)
    answers = _write(session, requests, decisions, moment, routes)
    return [_answer(place, decisions, answers) for place in range(len(requests))]


#: The items that requests name, by id and by sku. None stands for one that another transaction has locked.
Stock = Mapping[int | str, Item | None]


def _lock(session: Session, requests: Sequence[Reserve]) -> tuple[Stock, datetime | None]:
    """Lock the items that nobody else has locked. Return the stock and, if there is any, the database's time."""
    ids = {request.item for request in requests if isinstance(request.item, int)}
    skus = {request.item for request in requests if isinstance(request.item, str)}
    locked = items.lock_free(session, ids, skus)
    by_id: Stock = {item.id: item for item in locked.items}
    by_sku: Stock = {item.sku: item for item in locked.items}
    return {**by_id, **by_sku, **dict.fromkeys(locked.elsewhere)}, locked.at


@dataclass(frozen=True, slots=True)
class _Shortage:
    """The units that an item lacks for all of its requests, and those that it lacks for the smallest refused one."""

    all: int
    smallest: int


def _shortages(requests: Sequence[Reserve], decisions: Sequence[Decision], stock: Stock) -> Mapping[int, _Shortage]:
    """Return the shortages of items, by id. A request for more than was ever in stock is left out: it never fits."""
    asked: Counter[int] = Counter()
    refused: dict[int, int] = {}
    for request, decision in zip(requests, decisions, strict=True):
        item = stock.get(request.item)
        if item is None or request.quantity > item.stock_quantity:
            continue
        if isinstance(decision, Accepted | SoldOut):
            asked[item.id] += request.quantity
        if isinstance(decision, SoldOut):
            refused[item.id] = min(request.quantity, refused.get(item.id, request.quantity))
    available = {item.id: item.available_quantity for item in stock.values() if item}
    return {
        item_id: _Shortage(all=asked[item_id] - available[item_id], smallest=smallest - available[item_id])
        for item_id, smallest in refused.items()
    }


def _take_back(
    session: Session,
    requests: Sequence[Reserve],
    stock: Stock,
    shortages: Mapping[int, _Shortage],
    routes: Routes,
    effort: Effort,
) -> tuple[Stock, Mapping[int, float]]:
    """Expire overdue holds where that helps. Return the stock after that, and the units that others still keep."""
    overdue = overdue_units(session, shortages, effort.count)
    wanted = {
        item_id: shortage.all
        for item_id, shortage in shortages.items()
        if shortage.smallest <= min(overdue.get(item_id, 0), effort.lacking)
    }
    if take_back(session, wanted, routes, limit=effort.expire) == 0:
        return stock, overdue
    after, _ = _lock(session, requests)
    before = {item.id: item.available_quantity for item in stock.values() if item}
    return after, {
        item.id: overdue[item.id] - (item.available_quantity - before[item.id])
        for item in after.values()
        if item and item.id in overdue
    }


def decide(
    requests: Sequence[Reserve],
    stock: Stock,
    answered: Mapping[Key, StoredAnswer],
    overdue: Mapping[int, float] = MappingProxyType({}),
) -> Sequence[Decision]:
    """Decide requests in order of arrival on the locked numbers. Pure.

    `overdue` has the units of overdue holds, by item: a request that these would satisfy is deferred, not refused.
    """
    remaining = {item.id: item.available_quantity for item in stock.values() if item}
    first: dict[Key, int] = {}
    decisions: list[Decision] = []
    for place, request in enumerate(requests):
        decision = _repeated(request, requests, answered, first) or _by_stock(request, stock, remaining, overdue)
        if request.key and not isinstance(decision, Refusal | Deferred):
            first.setdefault(request.key, place)
        if isinstance(decision, Accepted):
            remaining[decision.item.id] -= request.quantity
        decisions.append(decision)
    return decisions


def _repeated(
    request: Reserve, requests: Sequence[Reserve], answered: Mapping[Key, StoredAnswer], first: Mapping[Key, int]
) -> Decision | None:
    """Answer a request whose key has been used before, in an earlier set or in this one."""
    if request.key is None:
        return None
    if request.key in answered:
        return idempotency.replay(answered[request.key], request.key, request.payload_hash)
    if request.key in first:
        of = first[request.key]
        same = requests[of].payload_hash == request.payload_hash
        return Duplicate(of) if same else IdempotencyKeyReused(request.key.key)
    return None


def _by_stock(request: Reserve, stock: Stock, remaining: Mapping[int, int], overdue: Mapping[int, float]) -> Decision:
    if request.item not in stock:
        return UnknownItem(request.item)
    item = stock[request.item]
    if item is None:
        return Deferred()
    left = remaining[item.id]
    if request.quantity <= left:
        return Accepted(item)
    possible = min(item.stock_quantity, left + overdue.get(item.id, 0))
    return Deferred() if request.quantity <= possible else SoldOut(item.sku, request.quantity, int(possible))


def _write(
    session: Session,
    requests: Sequence[Reserve],
    decisions: Sequence[Decision],
    moment: datetime | None,
    routes: Routes,
) -> Mapping[int, str]:
    """Write the accepted holds and all that belongs to them. Return their answers by place."""
    accepted = [(place, one.item) for place, one in enumerate(decisions) if isinstance(one, Accepted)]
    if not accepted:
        return {}
    assert moment is not None, "an item was locked"
    ids = new_ids(moment)
    holds = [(place, requests[place], _hold(next(ids), requests[place], item, moment)) for place, item in accepted]
    answers = {place: request.render(hold) for place, request, hold in holds}
    _insert(session, [(request, hold) for _, request, hold in holds], routes)
    given = [
        (request.key, StoredAnswer(request.payload_hash, answers[place]), hold.id)
        for place, request, hold in holds
        if request.key
    ]
    stored = idempotency.store(session, given)
    if len(stored) < len(given):
        raise KeyRace([place for place, request, _ in holds if request.key and request.key not in stored])
    return answers


def _hold(hold_id: UUID, request: Reserve, item: Item, moment: datetime) -> Reservation:
    return Reservation(
        id=hold_id,
        item_id=item.id,
        sku=item.sku,
        quantity=request.quantity,
        status=Status.PENDING,
        version=1,
        expires_at=moment + request.hold_for,
        guest_id=request.guest_id,
        source=request.source,
        note=request.note,
        metadata=request.metadata,
        created_at=moment,
        updated_at=moment,
    )


def _insert(session: Session, holds: Sequence[tuple[Reserve, Reservation]], routes: Routes) -> None:
    session.execute(_INSERT, {"given": as_json([_row(request, hold) for request, hold in holds])})
    created = (event for request, hold in holds for event in events.of_creation(hold, request.headers))
    outbox.record(session, created, routes)
    taken: Counter[int] = Counter()
    for _, hold in holds:
        taken[hold.item_id] -= hold.quantity
    items.move(session, taken)


_COLUMNS = (
    "id",
    "item_id",
    "idempotency_key",
    "quantity",
    "status",
    "expires_at",
    "guest_id",
    "source",
    "note",
    "metadata_text",
    "metadata",
    "created_at",
    "updated_at",
)


_given = records("given", changed_by=Text, **{name: reservations.c[name].type for name in _COLUMNS})
_noted = insert(history).from_select(
    ["reservation_id", "to_status", "changed_by"], select(_given.c.id, _given.c.status, _given.c.changed_by)
)
# One statement for both tables, because each one more is a round trip more for a lone request.
_INSERT = (
    insert(reservations)
    .from_select(_COLUMNS, select(*(_given.c[name] for name in _COLUMNS)))
    .add_cte(_noted.cte("noted"))
)


def _row(request: Reserve, hold: Reservation) -> Mapping[str, Any]:
    return {
        "id": hold.id,
        "item_id": hold.item_id,
        "idempotency_key": request.key and request.key.key,
        "quantity": hold.quantity,
        "status": hold.status,
        "expires_at": hold.expires_at,
        "guest_id": hold.guest_id,
        "source": hold.source,
        "note": hold.note,
        "metadata_text": hold.metadata,
        "metadata": hold.metadata and json.loads(hold.metadata),
        "created_at": hold.created_at,
        "updated_at": hold.updated_at,
        "changed_by": request.changed_by,
    }


def _answer(place: int, decisions: Sequence[Decision], answers: Mapping[int, str]) -> Answered | Refusal | Deferred:
    match decisions[place]:
        case Accepted():
            return Answered(answers[place])
        case Duplicate(of):
            shared = _answer(of, decisions, answers)
            return replace(shared, replayed=True) if isinstance(shared, Answered) else shared
        case decided:
            return decided
