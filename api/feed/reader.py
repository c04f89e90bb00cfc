"""A reader of the feed: a position, and what follows it."""

import asyncio
from collections.abc import Sequence

from api.bulkheads import ClientBulkhead
from api.feed.tail import StreamedEvent, Tail, patiently
from domain import feed
from domain.feed import Filter, Page

#: The events that are looked at, or read from the database, at a time.
BATCH = 200


class Reader:
    """What is wanted of the feed, read from the tail, or from the database while the tail does not go back as far.

    It keeps a position and no events, however slowly they are taken.
    """

    def __init__(self, tail: Tail, pages: ClientBulkhead, wanted: Filter, position: int) -> None:
        self._tail = tail
        self._pages = pages
        self._wanted = wanted
        self._position = position

    async def next(self, seconds: float) -> Sequence[StreamedEvent]:
        """Return the next events, or none if there are none within that time. Raises PositionGone."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            seen = self._tail.after(self._position, BATCH)
            if seen is None:
                found = await self._read_page()
            elif seen:
                self._position = seen[-1].position
                found = [event for event in seen if self._wanted.wants(event.type, event.aggregate_id)]
            elif await self._tail.move(deadline - asyncio.get_running_loop().time()):
                continue
            else:
                return ()
            if found:
                return found

    async def _read_page(self) -> Sequence[StreamedEvent]:
        page: Page = await patiently(
            lambda: self._pages.run(lambda session: feed.read(session, self._wanted, after=self._position, limit=BATCH))
        )
        self._position = page.read_up_to
        return [StreamedEvent.of(event) for event in page.events]
