"""Capacity: whether what a request claims of an item is free. Pure: it decides on the numbers of locked items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from domain.calendars.capacity import Occupied, Timeline
from domain.calendars.most_in_use import InUse
from domain.calendars.occupancies import Occupancy
from domain.calendars.periods import Period
from domain.calendars.rules import blocked
from domain.calendars.settings import refuse_outside
from domain.items import Item, Kind
from domain.runtime.errors import Invalid, NotFree, Refusal, SoldOut


class Claim(NamedTuple):
    """A line of a request: `quantity` units of the item with that id or, if it is text, that sku.

    Units of a calendar are claimed for a period.
    """

    item: int | str
    quantity: int
    period: Period | None = None


class Book(Protocol):
    """What is free of one locked item, while a set of requests is decided one after the other."""

    @property
    def item(self) -> Item:
        """The item that was locked."""

    @property
    def is_partial(self) -> bool:
        """Whether more of it is taken than was read."""

    def forbids(self, claim: Claim) -> Refusal | None:
        """Return why such a claim is never accepted, whatever is free."""

    def fits(self, claim: Claim) -> bool:
        """Return whether the claim can be taken."""

    def possible(self, claim: Claim, overdue: float) -> int:
        """Return the most units that such a claim could get if overdue holds gave back all that they keep.

        Of stock, these are `overdue` units.
        """

    def refuse(self, claim: Claim, possible: int) -> Refusal:
        """Return the refusal of a claim of which so many units are possible."""

    def take(self, claim: Claim) -> None:
        """Take a claim that fits."""

    def give_back(self, claim: Claim) -> None:
        """Give back a claim that was taken."""


@dataclass(slots=True)
class StockBook:
    """The counter of a stock item: `free` units are held and used up by nobody."""

    item: Item
    free: int
    is_partial: bool = False

    def forbids(self, claim: Claim) -> Refusal | None:
        if claim.period is not None:
            return Invalid("start", f"{self.item.sku} is stock, which is not reserved for a period")
        return None

    def fits(self, claim: Claim) -> bool:
        return claim.quantity <= self.free

    def possible(self, claim: Claim, overdue: float) -> int:
        return int(min(self.item.stock_quantity, self.free + overdue))

    def refuse(self, claim: Claim, possible: int) -> Refusal:
        return SoldOut(self.item.sku, claim.quantity, possible)

    def take(self, claim: Claim) -> None:
        self.free -= claim.quantity

    def give_back(self, claim: Claim) -> None:
        self.free += claim.quantity


class CalendarBook:
    """The time of a calendar: at any moment, no more than its capacity is taken.

    Overdue holds keep their time until they are expired, because somebody may be confirming one of them just now.
    """

    is_partial = False

    def __init__(self, item: Item, occupied: Sequence[Occupancy]) -> None:
        assert item.capacity is not None, "it is a calendar"
        self.item = item
        self._capacity = item.capacity
        self._kept = Timeline(_in_use(one) for one in occupied if not one.is_lapsed)
        self._has_lapsed = any(one.is_lapsed for one in occupied)
        self._all = Timeline(map(_in_use, occupied)) if self._has_lapsed else self._kept

    def forbids(self, claim: Claim) -> Refusal | None:
        if claim.period is None:
            return Invalid("start", f"{self.item.sku} is a calendar: give the start and the end of the reservation")
        if claim.quantity > self._capacity:
            return Invalid("quantity", f"{self.item.sku} has a capacity of {self._capacity}")
        return refuse_outside(self.item, claim.period)

    def fits(self, claim: Claim) -> bool:
        return claim.quantity <= self._free(self._all, claim)

    def possible(self, claim: Claim, overdue: float) -> int:
        return self._free(self._kept, claim)

    def refuse(self, claim: Claim, possible: int) -> Refusal:
        assert claim.period is not None, "others are forbidden"
        return NotFree(self.item.sku, claim.quantity, possible, claim.period.start, claim.period.end)

    def take(self, claim: Claim) -> None:
        self._change(claim, claim.quantity)

    def give_back(self, claim: Claim) -> None:
        self._change(claim, -claim.quantity)

    def _free(self, timeline: Timeline, claim: Claim) -> int:
        wanted = self._blocked(claim)
        return max(0, self._capacity - timeline.greatest_use(wanted.start, wanted.end))

    def _change(self, claim: Claim, units: int) -> None:
        wanted = self._blocked(claim)
        self._kept.add(wanted.start, wanted.end, units)
        if self._has_lapsed:
            self._all.add(wanted.start, wanted.end, units)

    def _blocked(self, claim: Claim) -> Period:
        assert claim.period is not None, "others are forbidden"
        return blocked(self.item, claim.period)


class BusyCalendarBook(CalendarBook):
    """The time of a calendar of which more is taken than was read.

    What was read is enough to refuse many claims. Others are decided if the most that is `in_use` is known of the time
    that they would block. Of claims for overlapping times, one set decides the first.
    """

    is_partial = True

    def __init__(self, item: Item, occupied: Sequence[Occupancy], in_use: Mapping[Period, InUse]) -> None:
        super().__init__(item, occupied)
        self._in_use = in_use
        self._taken = Timeline()

    def fits(self, claim: Claim) -> bool:
        wanted = self._blocked(claim)
        known = self._in_use.get(wanted)
        if known is None:
            return False
        taken = self._taken.greatest_use(wanted.start, wanted.end)
        return claim.quantity + taken + known.with_lapsed <= self._capacity

    def possible(self, claim: Claim, overdue: float) -> int:
        known = self._in_use.get(self._blocked(claim))
        return super().possible(claim, overdue) if known is None else max(0, self._capacity - known.without)

    def _change(self, claim: Claim, units: int) -> None:
        wanted = self._blocked(claim)
        self._taken.add(wanted.start, wanted.end, units)


def _in_use(one: Occupancy) -> Occupied:
    return Occupied(one.blocked_from, one.blocked_until, one.units)


def book_of(item: Item, occupied: Sequence[Occupancy], in_use: Mapping[Period, InUse] | None = None) -> Book:
    """Return the book of a locked item. If it is a calendar, so much of it is occupied.

    If more is, the book goes by what is `in_use` at most in the times that are known.
    """
    if item.kind != Kind.CALENDAR:
        return StockBook(item, item.available_quantity)
    return CalendarBook(item, occupied) if in_use is None else BusyCalendarBook(item, occupied, in_use)
