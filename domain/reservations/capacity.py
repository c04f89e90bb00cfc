"""Capacity: whether what a request claims of an item is free. Pure: it decides on the numbers of locked items."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from domain.items import Item


class Claim(NamedTuple):
    """A line of a request: `quantity` units of the item with that id or, if it is text, that sku."""

    item: int | str
    quantity: int


class Book(Protocol):
    """What is free of one locked item, while a set of requests is decided one after the other.

    Units of stock are counted (`StockBook`). Units of a calendar are free for a period, so the methods get the claim.
    """

    @property
    def item(self) -> Item:
        """The item that was locked."""

    def fits(self, claim: Claim) -> bool:
        """Return whether the claim can be taken."""

    def possible(self, claim: Claim, overdue: float) -> int:
        """Return the most units that such a claim could get if overdue holds gave back that many."""

    def take(self, claim: Claim) -> None:
        """Take a claim that fits."""

    def give_back(self, claim: Claim) -> None:
        """Give back a claim that was taken."""


@dataclass(slots=True)
class StockBook:
    """The counter of a stock item: `free` units are held and used up by nobody."""

    item: Item
    free: int

    def fits(self, claim: Claim) -> bool:
        return claim.quantity <= self.free

    def possible(self, claim: Claim, overdue: float) -> int:
        return int(min(self.item.stock_quantity, self.free + overdue))

    def take(self, claim: Claim) -> None:
        self.free -= claim.quantity

    def give_back(self, claim: Claim) -> None:
        self.free += claim.quantity


def book_of(item: Item) -> Book:
    """Return the book of a locked item."""
    return StockBook(item, item.available_quantity)
