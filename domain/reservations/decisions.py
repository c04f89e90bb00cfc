"""Decisions: which requests of a set are accepted, in order of arrival. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from domain import bookings, idempotency
from domain.access import ANONYMOUS, EVERYTHING, Reach
from domain.bookings import NewBooking
from domain.calendars.most_in_use import InUse
from domain.calendars.occupancies import Occupancies
from domain.calendars.periods import Period
from domain.idempotency import Answered, Key, StoredAnswer
from domain.items import Item
from domain.privacy import SealedGuest
from domain.reservations.capacity import Book, Claim, book_of
from domain.reservations.lifecycle import HOLDING, Status
from domain.reservations.ownership import owners_of
from domain.reservations.table import Reservation
from domain.reservations.transition import SYSTEM
from domain.runtime.errors import (
    IdempotencyKeyReused,
    Invalid,
    NotAllowed,
    ReferenceTaken,
    Refusal,
    SlotHasBegun,
    UnknownItem,
    UnknownSlot,
)


class Render(Protocol):
    """Makes the answer to a request."""

    def __call__(self, made: Reservation, /) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """A request for a reservation of one line or more. They are accepted as a whole, or refused as a whole.

    All of its items must belong to an owner that is `within` what its sender may reserve for others.
    `render` makes the answer in the format of whoever sent the request; it is stored under the key. An import chooses
    the `status` that the reservation begins with, the time at which it was made, and a reference that is unique among
    those of its client. Only a PENDING one is a hold and ends after `hold_for`; without that, it never lapses.
    `guest_id` is the account of its guest, and `guest` the person, who was encrypted before the request was queued.
    All lines are of stock, or all of calendars for one period. With a `booking` it becomes one, with a reference, a
    price and the steps that follow. If it is `of_slot`, its only item must be a slot: it is a hold until that begins.
    """

    lines: tuple[Claim, ...]
    hold_for: timedelta | None
    render: Render
    key: Key | None = None
    payload_hash: str = ""
    client_id: str = ANONYMOUS.client_id
    guest_id: str | None = None
    within: Reach = EVERYTHING
    guest: SealedGuest | None = None
    note: str | None = None
    metadata: str | None = None
    source: str = "api"
    changed_by: str = SYSTEM
    headers: dict[str, str] = field(default_factory=dict)
    status: Status = Status.PENDING
    made_at: datetime | None = None
    external_reference: str | None = None
    booking: NewBooking | None = None
    of_slot: bool = False

    def __post_init__(self) -> None:
        assert self.lines and (self.status is Status.PENDING or self.status in HOLDING)

    @property
    def items(self) -> tuple[int | str, ...]:
        """The items that it names, by id or sku."""
        return tuple(claim.item for claim in self.lines)

    @property
    def period(self) -> Period | None:
        """When it is, if it is for calendars."""
        return self.lines[0].period

    @property
    def operation(self) -> str:
        """The operation that asks for it, as rights name it."""
        return "bookings.create" if self.booking else "slots.book" if self.of_slot else "reservations.make"


#: The id of a client, and an outside reference of that client.
Reference = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Deferred:
    """It can't be decided at once: these items are locked, or have more overdue holds than one set may expire.

    Or more is taken of them than one set may read.
    """

    items: tuple[int | str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """Its items, in the order of its lines, have enough free units."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """It repeats the request at this place in the set, and shares its answer."""

    of: int


Decision = Accepted | Duplicate | Answered | Refusal | Deferred

#: The items that requests name, by id and by sku. None stands for one that another transaction has locked.
Stock = Mapping[int | str, Item | None]


#: What is in use of busy calendars, by their ids, in the times that claims would block.
MostInUse = Mapping[int, Mapping[Period, InUse]]


@dataclass(frozen=True, slots=True)
class Free:
    """The items that requests name, and what is taken of those that are calendars.

    Of the calendars that are `busy`, more is taken than was read.
    """

    stock: Stock
    occupied: Occupancies = field(default_factory=dict)
    busy: MostInUse = field(default_factory=dict)


def decide(
    requests: Sequence[Reserve],
    found: Free,
    answered: Mapping[Key, StoredAnswer],
    overdue: Mapping[int, float] = MappingProxyType({}),
    references: Collection[Reference] = (),
    moment: datetime | None = None,
) -> Sequence[Decision]:
    """Decide requests in order of arrival on the locked numbers.

    `overdue` has the units of overdue holds, by item: a request that these would satisfy is deferred, not refused.
    `references` are those of the requests that reservations have already. No booking and no slot begins before the
    `moment`.
    """
    books = _books(found)
    first: dict[Key, int] = {}
    taken = set(references)
    decisions: list[Decision] = []
    for place, request in enumerate(requests):
        decision = _repeated(request, requests, answered, first)
        if decision is None:
            decision = _refer(request, taken) or _by_capacity(request, books, overdue, moment)
        if request.key and not isinstance(decision, Refusal | Deferred):
            first.setdefault(request.key, place)
        if request.external_reference and isinstance(decision, Accepted):
            taken.add((request.client_id, request.external_reference))
        decisions.append(decision)
    return decisions


#: The books of items, by id and by sku. None stands for an item that another transaction has locked.
_Books = Mapping[int | str, Book | None]


def _books(found: Free) -> _Books:
    by_id: dict[int, Book] = {}
    for item in found.stock.values():
        if item is not None and item.id not in by_id:
            by_id[item.id] = book_of(item, found.occupied.get(item.id, ()), found.busy.get(item.id))
    return {name: None if item is None else by_id[item.id] for name, item in found.stock.items()}


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


def _refer(request: Reserve, taken: Collection[Reference]) -> Refusal | None:
    """Refuse a request whose outside reference another reservation of its client has."""
    if request.external_reference and (request.client_id, request.external_reference) in taken:
        return ReferenceTaken(request.external_reference)
    return None


def _by_capacity(request: Reserve, books: _Books, overdue: Mapping[int, float], moment: datetime | None) -> Decision:
    found: list[Book] = []
    for claim in request.lines:
        if claim.item not in books:
            return UnknownItem(claim.item)
        book = books[claim.item]
        if book is not None:
            if forbidden := book.forbids(claim):
                return forbidden
            found.append(book)
    if len(found) > 1 and len(found) > len({book.item.id for book in found}):
        return Invalid("lines", "each item may be in one line only")
    if len(found) < len(request.lines):
        return Deferred(tuple(claim.item for claim in request.lines if books[claim.item] is None))
    refused = _forbid(request, found) or _forbid_booking(request, found, moment) or _forbid_slot(request, found, moment)
    return refused or _accept(request.lines, found, overdue)


def _forbid_booking(request: Reserve, books: Sequence[Book], moment: datetime | None) -> Refusal | None:
    if request.booking is None:
        return None
    assert request.period and moment, "it is of a calendar, which is locked"
    return bookings.refuse(request.booking, books[0].item, request.lines[0].quantity, request.period, moment)


def _forbid_slot(request: Reserve, books: Sequence[Book], moment: datetime | None) -> Refusal | None:
    """Refuse slots that have begun, what is no slot to those who ask for one, and slots to those who do not."""
    for item in (book.item for book in books):
        if item.slot_starts_at is None:
            if request.of_slot:
                return UnknownSlot(item.sku)
        elif not request.of_slot:
            return Invalid("item_id", f"{item.sku} is a slot, about which its provider decides; POST /bookings")
        elif moment and item.slot_starts_at <= moment:
            return SlotHasBegun(item.sku, item.slot_starts_at)
    return None


def _forbid(request: Reserve, books: Sequence[Book]) -> Refusal | None:
    """Refuse items that belong to others than those for whom the sender may reserve."""
    if request.within.is_everything:
        return None
    venue, provider = owners_of([book.item for book in books])
    return None if request.within.covers(venue=venue, provider=provider) else NotAllowed(request.operation)


def _accept(claims: Sequence[Claim], found: Sequence[Book], overdue: Mapping[int, float]) -> Decision:
    if _take(claims, found):
        return Accepted(tuple([book.item for book in found]))
    lacking = (claim.item for claim, book in zip(claims, found, strict=True) if not book.fits(claim))
    return _refuse(claims, found, overdue) or Deferred(tuple(lacking))


def _refuse(claims: Sequence[Claim], books: Sequence[Book], overdue: Mapping[int, float]) -> Refusal | None:
    """Name the first claim that would not fit if overdue holds had given back their units, or return None."""
    for claim, book in zip(claims, books, strict=True):
        possible = book.possible(claim, overdue.get(book.item.id, 0))
        if claim.quantity > possible:
            return book.refuse(claim, possible)
    return None


def _take(claims: Sequence[Claim], books: Sequence[Book]) -> bool:
    """Take all claims, or none if one of them does not fit. Return whether they were taken."""
    for place, book in enumerate(books):
        if not book.fits(claims[place]):
            for taken, its_book in zip(claims[:place], books[:place], strict=True):
                its_book.give_back(taken)
            return False
        book.take(claims[place])
    return True
