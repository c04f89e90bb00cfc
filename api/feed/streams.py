"""Streams of the feed: server-sent events, for as long as their readers take them.

Source of the format: the HTML standard, section 9.2.
"""

import asyncio
import random
from collections import Counter as Occurrences
from collections.abc import Iterator, Sequence
from typing import Any, cast

import msgspec
from litestar import Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from api.auth.gate import Gate
from api.bulkheads import ClientBulkhead
from api.fair_queue import who_makes_room
from api.feed.reader import Reader
from api.feed.tail import StreamedEvent, Tail
from api.http import problems
from api.http.limits import PART_BYTES, SEND_SECONDS
from domain.feed import Filter, Page
from domain.runtime.errors import Busy, NotAuthenticated, Refusal
from domain.runtime.metrics import Counter, Gauge

#: The streams that a process serves at a time. Each is a connection, and some 50 KB of memory.
MOST_STREAMS = 200

#: A stream without events is written to this often, so that proxies do not take it for dead.
HEARTBEAT_SECONDS = 15.0

#: The end of a stream is sent within this time, or not at all: the process may be stopping.
END_SECONDS = 1.0

#: How often the credentials are checked by which streams were opened. That is done in memory.
CHECK_SECONDS = 1.0

#: After how long a reader connects again, in milliseconds: not all of them at the same moment.
RETRY_MILLISECONDS = (1_000, 3_000)

#: A comment. No empty line follows it: some clients take that for an event without data.
HEARTBEAT = b": heartbeat\n"

#: The last event of a stream whose credentials have ended, in place of the answer 401. It has no id, so its reader
#: keeps the position of the last event of the feed.
PROBLEM = b"event: problem\ndata: %s\n\n"

MEDIA_TYPE = "text/event-stream"

HEADERS = (
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"vary", b"accept"),
    # nginx would otherwise keep events back until it has many of them.
    (b"x-accel-buffering", b"no"),
)

STREAMS = Gauge("holdfast_feed_streams", "Streams of the feed that are open now.", multiprocess_mode="livesum")
CUT_OFF = Counter(
    "holdfast_feed_streams_cut_off",
    f"Streams of the feed that were ended because their reader took nothing for {SEND_SECONDS:g} s.",
)
LAPSED = Counter(
    "holdfast_feed_streams_lapsed",
    "Streams of the feed that were ended because their credentials had expired or were revoked.",
)


class SlowReader(Exception):
    """Raised when a reader takes nothing any more."""


class Streams:
    """The streams of this process, with the tail that they share."""

    def __init__(self, tail: Tail, gate: Gate) -> None:
        self._tail = tail
        self._gate = gate
        #: The oldest first.
        self._streams: dict[Stream, None] = {}
        self._checker: asyncio.Task[None] | None = None
        self._is_stopping = False

    def open(self, pages: ClientBulkhead, wanted: Filter, first: Page, authorization: str | None) -> Response[Any]:
        """Return the response that streams what is wanted, from a first page on. Raises Busy if there are too many.

        It ends when the credentials in `authorization` do.
        """
        if self._is_stopping:
            raise Busy
        if len(self._streams) >= MOST_STREAMS:
            self._make_room_for(pages.principal.name)
        events = [StreamedEvent.of(event) for event in first.events]
        reader = Reader(self._tail, pages, wanted, first.read_up_to)
        stream = Stream(self, pages.principal.name, events, reader, authorization)
        self._streams[stream] = None
        STREAMS.inc()
        self._tail.start(first.newest, self.end_all)
        self._checker = self._checker or asyncio.create_task(self._check())
        return _Streaming(stream)

    def stop(self) -> None:
        """End all streams, and open no more."""
        self._is_stopping = True
        self.end_all()

    def end_all(self) -> None:
        """End all streams. Their readers connect again, and continue where they were."""
        for stream in list(self._streams):
            self.end(stream)

    def end(self, stream: "Stream") -> None:
        """End a stream, if it has not ended. Without streams, nobody polls, and nothing is checked."""
        if stream in self._streams:
            del self._streams[stream]
            STREAMS.dec()
            stream.ended.set()
            if not self._streams:
                self._tail.stop()
                if self._checker:
                    self._checker.cancel()
                self._checker = None

    async def _check(self) -> None:
        """End each stream whose credentials have ended, until this is cancelled."""
        try:
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                await self._end_lapsed()
        finally:
            # Without a check, no stream may go on. Those that were opened after the last one had ended have another.
            if self._checker is asyncio.current_task():
                self.end_all()

    async def _end_lapsed(self) -> None:
        """Check each `authorization` once, however many streams have it, and end those that nobody is let in by."""
        lapses: dict[str | None, NotAuthenticated | None] = {}
        for stream in [*self._streams]:
            if stream.authorization not in lapses:
                # When keys have changed, signatures are verified anew: the event loop does other things between them.
                await asyncio.sleep(0)
                lapses[stream.authorization] = self._gate.lapse_of(stream.authorization)
            stream.lapse = lapses[stream.authorization]
            if stream.lapse:
                self.end(stream)

    def _make_room_for(self, sender: str) -> None:
        """End the oldest stream of the sender that has the most. Raises Busy if this one has about as many."""
        largest = who_makes_room(Occurrences(stream.sender for stream in self._streams), sender)
        if largest is None:
            raise Busy
        self.end(next(stream for stream in self._streams if stream.sender == largest))


class Stream:
    """One stream: an ASGI application for one exchange."""

    def __init__(
        self,
        streams: Streams,
        sender: str,
        first: Sequence[StreamedEvent],
        reader: Reader,
        authorization: str | None,
    ) -> None:
        #: Who has opened it, by name. For how many clients the same one acts makes no difference.
        self.sender = sender
        self.authorization = authorization
        #: Why its credentials have ended, if they have.
        self.lapse: NotAuthenticated | None = None
        self.ended = asyncio.Event()
        self._streams = streams
        self._first = first
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the reader disconnects or takes nothing any more, or until the stream is ended."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            if not scope.get("is_head"):
                await self._run(receive, send)
            await _send(send, self._last_part(), within=END_SECONDS, more=False)
        except SlowReader:
            # Without its end, so that the server closes the connection.
            CUT_OFF.inc()
        finally:
            self._streams.end(self)

    def _last_part(self) -> bytes:
        if self.lapse is None:
            return b""
        LAPSED.inc()
        return PROBLEM % msgspec.json.encode(problems.body_of(self.lapse))

    async def _run(self, receive: Receive, send: Send) -> None:
        following = asyncio.create_task(self._follow(send))
        others = [asyncio.create_task(self.ended.wait()), asyncio.create_task(_disconnected(receive))]
        try:
            await asyncio.wait([following, *others], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (following, *others):
                task.cancel()
        (result, *_) = await asyncio.gather(following, *others, return_exceptions=True)
        if isinstance(result, Exception) and not isinstance(result, Refusal):
            raise result

    async def _follow(self, send: Send) -> None:
        await _send(send, b"retry: %d\n" % random.randint(*RETRY_MILLISECONDS), within=SEND_SECONDS)
        events, self._first = self._first, ()
        while True:
            for part in _parts(events):
                await _send(send, part, within=SEND_SECONDS)
            events = ()  # so that they are not kept until there are others
            events = await self._reader.next(HEARTBEAT_SECONDS)


async def _send(send: Send, part: bytes, *, within: float, more: bool = True) -> None:
    """Send a part of a stream. Raises SlowReader if it is not taken within that time, in seconds."""
    try:
        async with asyncio.timeout(within):
            await send({"type": "http.response.body", "body": part, "more_body": more})
    except TimeoutError:
        raise SlowReader from None


def _parts(events: Sequence[StreamedEvent]) -> Iterator[bytes]:
    """Yield events in parts, or a heartbeat without any."""
    part = bytearray()
    for event in events:
        part += event.text
        if len(part) >= PART_BYTES:
            yield bytes(part)
            part.clear()
    if part or not events:
        yield bytes(part or HEARTBEAT)


async def _disconnected(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Streaming(Response[Any]):
    """A response whose content is a stream."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(None, media_type=MEDIA_TYPE)
        self._stream = stream

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIResponse:
        return cast(ASGIResponse, self._stream)
