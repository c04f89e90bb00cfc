"""The calendars of venues, remembered for a moment, so that a booking needs no read of its own."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from api.bulkheads import ClientBulkhead
from domain import items
from domain.items import Item
from domain.runtime.errors import CalendarChanged, Invalid, UnknownVenue

T = TypeVar("T")

#: How long the calendar of a venue is remembered. Its venue and its time zone are looked at again when it is locked.
KEPT_SECONDS = 60.0

#: The venues that are remembered.
KEPT = 10_000

#: The field that is at fault if it is unclear which calendar of a venue is meant.
UNCLEAR = "inventory_item_id"

#: So many calendars of a venue are read, if it has several.
MOST = 10


class Venues:
    """The calendars of the venues that were asked for lately. It belongs to one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str | None], tuple[float, Item]] = OrderedDict()

    async def use(self, reads: ClientBulkhead, venue: str, sku: str | None, act: Callable[[Item], Awaitable[T]]) -> T:
        """Act on the calendar of a venue. If it has changed since it was remembered, read it anew, and act again."""
        calendar = await self.calendar(reads, venue, sku)
        try:
            return await act(calendar)
        except CalendarChanged:
            self._kept.pop((venue, sku), None)
        return await act(await self.calendar(reads, venue, sku))

    async def calendar(self, reads: ClientBulkhead, venue: str, sku: str | None) -> Item:
        """Return the calendar of a venue: that of a sku or, without one, the only one. Raises UnknownVenue, Invalid."""
        if known := self.known(venue, sku):
            return known
        found = await reads.run(lambda session: items.of_venue(session, venue, sku=sku, limit=MOST))
        if not found:
            raise UnknownVenue(venue)
        if len(found) > 1:
            skus = ", ".join(one.sku for one in found)
            raise Invalid(UNCLEAR, f"the venue has several calendars, so name one of them, such as {skus}")
        return self._keep(venue, sku, found[0])

    def known(self, venue: str, sku: str | None) -> Item | None:
        """Return the calendar of a venue, if it is remembered."""
        kept_until, calendar = self._kept.get((venue, sku), (0.0, None))
        return calendar if time.monotonic() < kept_until else None

    def _keep(self, venue: str, sku: str | None, calendar: Item) -> Item:
        self._kept[venue, sku] = (time.monotonic() + KEPT_SECONDS, calendar)
        self._kept.move_to_end((venue, sku))
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return calendar
