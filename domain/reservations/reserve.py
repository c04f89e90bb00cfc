"""Reserving: many requests at once, under the locks of their items."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf

from sqlalchemy import Text, select, true
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from domain import idempotency, items
from domain.idempotency import Answered, Key, StoredAnswer
from domain.items import Item, Locked
from domain.outbox import Routes
from domain.reservations.creation import Made, make, write_queries
from domain.reservations.decisions import Accepted, Decision, Deferred, Duplicate, Reference, Reserve, Stock, decide
from domain.reservations.expiry import TAKE_BACK_LIMIT, overdue_units, take_back
from domain.reservations.table import REFERENCE_IS_UNIQUE, reservations
from domain.runtime.database import constraint_of, records
from domain.runtime.encoding import encode
from domain.runtime.errors import Refusal, SoldOut
from domain.runtime.pipeline import Query, execute


class KeyRace(Exception):
    """Raised when keys or outside references raced with requests for other items.

    Roll back, and decide the requests at these places in another set.
    """

    def __init__(self, places: Collection[int]) -> None:
        super().__init__(f"{len(places)} keys or references were stored by another transaction meanwhile")
        self.places = places


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
    session: Session, requests: Sequence[Reserve], routes: Routes, *, effort: Effort = THOROUGH
) -> Sequence[Answered | Refusal | Deferred]:
    """Make the reservations for which there is enough of every item, in order of arrival, and answer each request.

    A refusal makes no reservation, but overdue holds of its items may be expired. It waits for no lock of an item.
    Raises KeyRace.

    There are two round trips. The first locks the items, and looks up the keys and the outside references. The second
    inserts the reservations with their history, their further lines and their events, takes the units, and stores the
    answers. If units are lacking, overdue holds are counted and expired in between, and the items are read again.
    """
    keys = {request.key for request in requests if request.key}
    references = {(one.client_id, one.external_reference) for one in requests if one.external_reference}
    # After the locks: a duplicate asks for the same item, so its answer is committed and seen by now.
    then = (idempotency.lookup_query(keys), _references_query(references))
    locked = items.lock_free(session, named_by(requests), then)
    answered, known = idempotency.read_answers(locked.then[0]), {tuple(row) for row in locked.then[1]}
    stock = _stock_of(locked)
    decisions = decide(requests, stock, answered, references=known)
    shortages = _shortages(requests, decisions, stock)
    if shortages:
        stock, overdue = _take_back(session, requests, stock, shortages, routes, effort)
        decisions = decide(requests, stock, answered, overdue, known)
    answers = _write(session, requests, decisions, locked.at, routes)
    return [_answer(place, decisions, answers) for place in range(len(requests))]


def _stock_of(locked: Locked) -> Stock:
    by_id: Stock = {item.id: item for item in locked.items}
    by_sku: Stock = {item.sku: item for item in locked.items}
    return {**by_id, **by_sku, **dict.fromkeys(locked.elsewhere)}


def named_by(requests: Iterable[Reserve]) -> Collection[int | str]:
    """Return the items that requests name, by id or sku."""
    return {claim.item for request in requests for claim in request.lines}


def _references_query(references: Collection[Reference]) -> Query:
    """Return the query for those of these outside references that reservations have."""
    asked = [{"client_id": client, "external_reference": reference} for client, reference in references]
    return Query(_KNOWN, {"asked": encode(asked)})


_asked = records("asked", client_id=Text, external_reference=Text)
# The limit makes PostgreSQL look each reference up by its index, as it does for idempotency keys.
_one = (
    select(reservations.c.client_id, reservations.c.external_reference)
    .where(
        reservations.c.client_id == _asked.c.client_id,
        reservations.c.external_reference == _asked.c.external_reference,
    )
    .limit(1)
    .lateral("one")
)
_KNOWN = select(_one).select_from(_asked.join(_one, true()))


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
    after = _stock_of(items.lock_free(session, named_by(requests)))
    before = {item.id: item.available_quantity for item in stock.values() if item}
    return after, {
        item.id: overdue[item.id] - (item.available_quantity - before[item.id])
        for item in after.values()
        if item and item.id in overdue
    }


def _write(
    session: Session,
    requests: Sequence[Reserve],
    decisions: Sequence[Decision],
    moment: datetime | None,
    routes: Routes,
) -> Mapping[int, str]:
    """Write what was accepted and all that belongs to it. Return the answers by place. Raises KeyRace."""
    accepted = [(place, one.items) for place, one in enumerate(decisions) if isinstance(one, Accepted)]
    if not accepted:
        return {}
    assert moment is not None, "an item was locked"
    places = [place for place, _ in accepted]
    made = make([(requests[place], of) for place, of in accepted], moment)
    answers: list[str] = []
    try:
        # The last query stores the answers, and its rows are the keys that were new.
        *_, rows = execute(session, _write_queries(session, made, routes, answers))
    except IntegrityError as error:
        if constraint_of(error) != REFERENCE_IS_UNIQUE:
            raise
        raise KeyRace([place for place in places if requests[place].external_reference]) from error
    stored = {Key(*row) for row in rows}
    raced = [place for place in places if (key := requests[place].key) and key not in stored]
    if raced:
        raise KeyRace(raced)
    return dict(zip(places, answers, strict=True))


def _write_queries(session: Session, made: Made, routes: Routes, answers: list[str]) -> Iterator[Query]:
    """Yield the queries that write reservations and store their answers, which are added to `answers`.

    The answers are rendered while PostgreSQL executes the queries before.
    """
    yield from write_queries(session, made, routes)
    answers += [request.render(one) for request, one in made]
    yield idempotency.store_query(
        [
            (request.key, StoredAnswer(request.payload_hash, answer), one.id)
            for (request, one), answer in zip(made, answers, strict=True)
            if request.key
        ]
    )


def _answer(place: int, decisions: Sequence[Decision], answers: Mapping[int, str]) -> Answered | Refusal | Deferred:
    match decisions[place]:
        case Accepted():
            return Answered(answers[place])
        case Duplicate(of):
            shared = _answer(of, decisions, answers)
            return replace(shared, replayed=True) if isinstance(shared, Answered) else shared
        case decided:
            return decided
