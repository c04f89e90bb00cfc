"""The tail of the feed: its newest events, read by one poller for all streams of this process."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple, Self, TypeVar
from uuid import UUID

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.bulkheads import Bulkhead
from api.feed.schemas import EventView
from api.waits import wait_seconds
from domain import feed
from domain.feed import FeedEvent, Filter
from domain.runtime.database_errors import trouble
from domain.runtime.errors import DatabaseUnavailable, Refusal, Unavailable
from domain.runtime.schema import lacks_schema

#: How often new events are looked for while there are streams.
POLL_SECONDS = 0.1

#: The events that are read at a time.
BATCH = 500

#: What the tail keeps in memory. A stream that falls behind by more reads pages of the database.
MOST_BYTES = 4_000_000

EVERYTHING = Filter()

T = TypeVar("T")

log = structlog.get_logger()


class StreamedEvent(NamedTuple):
    """An event as streams send it, and what filters look at."""

    position: int
    type: str
    aggregate_id: UUID
    text: bytes

    @classmethod
    def of(cls, event: FeedEvent) -> Self:
        # JSON has no line breaks, so it is one line.
        data = msgspec.json.encode(EventView.of(event))
        text = b"id: %d\nevent: %s\ndata: %s\n\n" % (event.position, event.type.encode(), data)
        return cls(event.position, event.type, event.aggregate_id, text)


class Tail:
    """The newest events, without gaps, up to the position `newest`. It is used by the event loop only."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self._bulkhead = bulkhead
        self._events: deque[StreamedEvent] = deque()
        self._bytes = 0
        self._newest = 0
        self._moved = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None

    def start(self, after: int, ended: Callable[[], None]) -> None:
        """Begin to poll for events after a position, unless it was begun. `ended` is called if that can't continue."""
        if self._poller is None:
            self._newest = after
            self._poller = asyncio.create_task(self._poll(ended))

    def stop(self) -> None:
        """End polling, and forget the events."""
        if self._poller is not None:
            self._poller.cancel()
        self._poller, self._bytes = None, 0
        self._events.clear()

    def after(self, position: int, limit: int) -> Sequence[StreamedEvent] | None:
        """Return the first events after a position, if any are known. None if they are not in memory any more."""
        if position >= self._newest:
            return ()
        first = len(self._events) - (self._newest - position)
        # Those at the right end are found quickly, as most streams want them.
        places = range(first, min(len(self._events), first + limit))
        return None if first < 0 else [self._events[place] for place in places]

    async def move(self, seconds: float) -> bool:
        """Wait until there are newer events, so long at the most. Return whether there are."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._moved.wait()
        return False

    async def _poll(self, ended: Callable[[], None]) -> None:
        try:
            while True:
                is_full = await patiently(self._read)
                await asyncio.sleep(0 if is_full else POLL_SECONDS)
        except Refusal as refused:
            # The database does not have the events any more that were read, as after a backup was restored.
            log.warning("feed.began_anew", newest=self._newest, error=str(refused))
        finally:
            if self._poller is asyncio.current_task():
                ended()

    async def _read(self) -> bool:
        """Read the events that are new. Return whether there may be more."""
        after = self._newest
        page = await self._bulkhead.run(lambda session: feed.read(session, EVERYTHING, after=after, limit=BATCH))
        self._add(map(StreamedEvent.of, page.events))
        if page.events:
            self._newest = page.read_up_to
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()
        return page.read_up_to < page.newest

    def _add(self, events: Iterable[StreamedEvent]) -> None:
        for event in events:
            self._events.append(event)
            self._bytes += len(event.text)
        while self._bytes > MOST_BYTES:
            self._bytes -= len(self._events.popleft().text)


async def patiently(act: Callable[[], Awaitable[T]]) -> T:
    """Return what `act` returns, as soon as the database answers."""
    while True:
        try:
            return await act()
        except (SQLAlchemyError, Unavailable) as error:
            passing = error if isinstance(error, Unavailable) else _trouble(error)
            log.warning("feed.waits", error=type(error).__name__)
        await asyncio.sleep(wait_seconds(passing))


def _trouble(error: SQLAlchemyError) -> Unavailable:
    """Return the trouble that an error passes with. Raises an error that does not pass by itself."""
    passing = DatabaseUnavailable() if lacks_schema(error) else trouble(error)
    if passing is None:
        raise error
    return passing
