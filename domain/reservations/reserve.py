"""Reserving stock: many requests at once, under the locks of their items."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from domain import idempotency, items, outbox
from domain.idempotency import Answered, Key, StoredAnswer
from domain.items import Item
from domain.outbox import Routes
from domain.reservations import events
from domain.reservations.expiry import take_back
from domain.reservations.lifecycle import Status
from domain.reservations.table import Reservation, history, reservations
from domain.reservations.transition import SYSTEM
from domain.runtime.database import copy, now
from domain.runtime.errors import HoldfastError, IdempotencyKeyReused, Refusal, SoldOut, UnknownItem
from domain.runtime.identity import new_id


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
    metadata: dict[str, Any] | None = None
    source: str = "api"
    changed_by: str = SYSTEM
    headers: dict[str, str] = field(default_factory=dict)


class KeyRace(HoldfastError):
    """Raised when a key raced with a request for another item: roll back and take the members one by one."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The stock allows it."""

    item: Item


@dataclass(frozen=True, slots=True)
class Duplicate:
    """It repeats the request at this place in the set, and shares its answer."""

    of: int


Decision = Accepted | Duplicate | Answered | Refusal


def reserve(
    session: Session, requests: Sequence[Reserve], render: Callable[[Reservation], str], routes: Routes
) -> Sequence[Answered | Refusal]:
    """Make the holds that the stock allows, in order of arrival, and answer each request.

    `render` makes the answer that is stored under a request's key. A refusal writes
    nothing. Raises KeyRace.
    """
    stock = _lock(session, requests)
    # After the locks: a duplicate asks for the same item, so its answer is committed and seen by now.
    answered = idempotency.lookup(session, {request.key for request in requests if request.key})
    decisions = decide(requests, stock, answered)
    while take_back(session, _short(requests, decisions, stock), routes):
        stock = _lock(session, requests)
        decisions = decide(requests, stock, answered)
    answers = _write(session, requests, decisions, render, routes)
    return [_answer(place, decisions, answers) for place in range(len(requests))]


def _lock(session: Session, requests: Sequence[Reserve]) -> Mapping[int | str, Item]:
    """Lock the items asked for. Return them by id and by sku."""
    ids = {request.item for request in requests if isinstance(request.item, int)}
    skus = {request.item for request in requests if isinstance(request.item, str)}
    locked = items.lock(session, ids, skus)
    return {item.id: item for item in locked} | {item.sku: item for item in locked}


def decide(
    requests: Sequence[Reserve], stock: Mapping[int | str, Item], answered: Mapping[Key, StoredAnswer]
) -> Sequence[Decision]:
    """Decide requests in order of arrival on the locked numbers. Pure."""
    remaining = {item.id: item.available_quantity for item in stock.values()}
    first: dict[Key, int] = {}
    decisions: list[Decision] = []
    for place, request in enumerate(requests):
        decision = _repeated(request, requests, answered, first) or _fits(request, stock, remaining)
        if request.key and not isinstance(decision, Refusal):
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


def _fits(request: Reserve, stock: Mapping[int | str, Item], remaining: Mapping[int, int]) -> Decision:
    item = stock.get(request.item)
    if item is None:
        return UnknownItem(request.item)
    if request.quantity > remaining[item.id]:
        return SoldOut(item.sku, request.quantity, remaining[item.id])
    return Accepted(item)


def _short(
    requests: Sequence[Reserve], decisions: Sequence[Decision], stock: Mapping[int | str, Item]
) -> Collection[int]:
    """Return the ids of the items of which there was too little."""
    refused = (request for request, decision in zip(requests, decisions, strict=True) if isinstance(decision, SoldOut))
    return {stock[request.item].id for request in refused}


def _write(
    session: Session,
    requests: Sequence[Reserve],
    decisions: Sequence[Decision],
    render: Callable[[Reservation], str],
    routes: Routes,
) -> Mapping[int, str]:
    """Write the accepted holds and all that belongs to them. Return their answers by place."""
    accepted = [(place, one.item) for place, one in enumerate(decisions) if isinstance(one, Accepted)]
    if not accepted:
        return {}
    moment = now(session)
    holds = [(place, requests[place], _hold(requests[place], item, moment)) for place, item in accepted]
    answers = {place: render(hold) for place, _, hold in holds}
    _insert(session, [(request, hold) for _, request, hold in holds], routes)
    given = [
        (request.key, StoredAnswer(request.payload_hash, answers[place]), hold.id)
        for place, request, hold in holds
        if request.key
    ]
    if idempotency.store(session, given) < len(given):
        raise KeyRace
    return answers


def _hold(request: Reserve, item: Item, moment: datetime) -> Reservation:
    return Reservation(
        id=new_id(),
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
    copy(session, reservations, _COLUMNS, (_row(request, hold) for request, hold in holds))
    copy(
        session,
        history,
        ("reservation_id", "to_status", "changed_by"),
        ((hold.id, hold.status, request.changed_by) for request, hold in holds),
    )
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
    "metadata",
    "created_at",
    "updated_at",
)


def _row(request: Reserve, hold: Reservation) -> tuple[Any, ...]:
    return (
        hold.id,
        hold.item_id,
        request.key and request.key.key,
        hold.quantity,
        hold.status,
        hold.expires_at,
        hold.guest_id,
        hold.source,
        hold.note,
        None if hold.metadata is None else json.dumps(hold.metadata),
        hold.created_at,
        hold.updated_at,
    )


def _answer(place: int, decisions: Sequence[Decision], answers: Mapping[int, str]) -> Answered | Refusal:
    match decisions[place]:
        case Accepted():
            return Answered(answers[place])
        case Duplicate(of):
            shared = _answer(of, decisions, answers)
            return replace(shared, replayed=True) if isinstance(shared, Answered) else shared
        case decided:
            return decided
