"""Bulkheads: each kind of request has its own threads and connections, so that slow ones delay no other kind.

Within a kind, the clients that wait for a thread take turns.
"""

import asyncio
import time
from collections import Counter as Occurrences
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from api.fair_queue import FairQueue
from api.rests import Rests
from domain import outbox
from domain.access import ANONYMOUS, Principal
from domain.runtime import database, database_errors
from domain.runtime.errors import Busy
from domain.runtime.metrics import Counter
from domain.runtime.settings import Settings

T = TypeVar("T")

REFUSED = Counter(
    "holdfast_requests_refused_busy",
    "Requests answered 503 because no thread of their kind was free in time. Alert on any increase: requests of that"
    " kind are slow, or there are too many.",
    ["kind"],
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one kind of request.

    `threads` is also the number of connections. A request that gets no thread within `wait_seconds` is answered 503,
    and so is one that finds `waiting` others before it: or, in its place, one of the client that has the most there.
    A request that waits for the lock of a row for longer than `lock_milliseconds` is answered 503 as well; or it is
    tried again within the limits `locked`, if there are some, so that a row that stays locked delays only the requests
    for such rows.

    All requests of the kind together take no more than `processors` of the processor's time in the long run, if that is
    given: clients that have computed for long rest, and none has all threads at a time. The threads of a process take
    turns on one processor, so who reads without pause would slow all others down.
    """

    threads: int
    waiting: int = 200
    wait_seconds: float = 2.0
    statement_seconds: int = 4
    transaction_seconds: float = 5.0
    lock_milliseconds: int = 2_000
    locked: "Limits | None" = None
    processors: float | None = None


#: What a request for a row that stays locked may cost. It has threads of its own after a first try, which takes little
#: time: hundreds of such requests a second must leave most of the threads to others. Items are often locked for a few
#: milliseconds, by the group commit, and reservations seldom.
LOCKED = Limits(threads=2, lock_milliseconds=500)
RESERVATION_LOCK_MILLISECONDS = 2
ITEM_LOCK_MILLISECONDS = 5

#: The kinds of requests that have threads and connections of their own, beside making reservations.
BULKHEADS: Mapping[str, Limits] = {
    "reads": Limits(threads=2),
    # These may compute for long, for each page of 1,000 rows.
    "lists": Limits(threads=3, processors=0.2),
    # These compute for some milliseconds each, and for more if much is taken of many calendars.
    "availability": Limits(threads=2, processors=0.3),
    "feed_pages": Limits(threads=2, processors=0.3),
    # Streams that begin before the tail of the feed, or have fallen behind it: all at once after a restart.
    "feed_catch_up": Limits(threads=1, processors=0.2),
    # The poller of the feed, of which there is one.
    "feed_tail": Limits(threads=1),
    # These lock a reservation, or nothing.
    "changes": Limits(threads=3, lock_milliseconds=RESERVATION_LOCK_MILLISECONDS, locked=LOCKED),
    # These lock an item, which others may have locked for long.
    "item_changes": Limits(threads=3, lock_milliseconds=ITEM_LOCK_MILLISECONDS, locked=LOCKED),
    # These are for operators, and some of them count or change many rows.
    "operations": Limits(threads=2, statement_seconds=10, transaction_seconds=12, processors=0.3),
    # These explain refusals, which are answered without an explanation if that would take long.
    "explanations": Limits(threads=2, waiting=20, wait_seconds=0.5, statement_seconds=2, processors=0.3),
    # These must be answered when nothing else is.
    "probes": Limits(threads=2, waiting=20, wait_seconds=1, statement_seconds=1, transaction_seconds=2),
}

#: Those whose requests may record events.
RECORDING = frozenset({"changes", "item_changes", "operations"})


class Bulkhead:
    """Threads with a connection each, and a queue with a limit before them."""

    def __init__(self, kind: str, settings: Settings, limits: Limits, *, committed: Callable[[], None]) -> None:
        """`committed` is called after a commit that has recorded events."""
        self._kind = kind
        self._limits = limits
        self._committed = committed
        self._engine = database.connect(
            settings,
            connections=limits.threads,
            statement_seconds=limits.statement_seconds,
            transaction_seconds=limits.transaction_seconds,
            lock_milliseconds=limits.lock_milliseconds,
        )
        self.db: sessionmaker[Session] = database.sessions(self._engine)
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix=kind)
        self._running: Occurrences[Hashable] = Occurrences()
        self._rests = Rests(limits.processors)
        self._waiting: FairQueue[_Turn] = FairQueue()
        self._rested: asyncio.TimerHandle | None = None
        self._for_locked = (
            Bulkhead(f"{kind}_locked", settings, limits.locked, committed=committed) if limits.locked else None
        )

    def engines(self) -> Iterator[Engine]:
        """Yield the engine of its threads, and the one for rows that stay locked."""
        yield self._engine
        if self._for_locked:
            yield from self._for_locked.engines()

    async def run(self, act: Callable[[Session], T], principal: Principal = ANONYMOUS) -> T:
        """Return what `act` returns, in a transaction of its own. Raises Busy, OutcomeUnknown and what `act` raises.

        It may be called twice: the first transaction is then rolled back.
        """
        try:
            return await self._run(act, principal)
        except OperationalError as error:
            if self._for_locked is None or not database_errors.is_lock_timeout(error):
                raise
        return await self._for_locked.run(act, principal)

    async def _run(self, act: Callable[[Session], T], principal: Principal) -> T:
        client = principal.client_id
        await self._get_thread(client)
        loop = asyncio.get_running_loop()
        computed = _Computed()
        running = self._threads.submit(copy_context().run, self._transact, act, computed)

        def release() -> None:
            self._rests.charge(client, computed.seconds)
            self._give_back(client)

        # By the thread and not here: a request that its client has abandoned keeps the thread until it is done.
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(release))
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Wait for the requests in flight, and close the connections."""
        if self._for_locked:
            self._for_locked.close()
        self._threads.shutdown()
        self._engine.dispose()

    async def _get_thread(self, client: str) -> None:
        if self._may_have_thread(client, time.monotonic()):
            self._running[client] += 1
            return
        turn = self._wait(client)
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                await turn.comes
        except TimeoutError:
            self._give_up(turn)
            raise self._refuse() from None
        except (asyncio.CancelledError, Busy):
            self._give_up(turn)
            raise

    def _may_have_thread(self, client: Hashable, now: float) -> bool:
        free = self._limits.threads - self._running.total()
        if self._limits.processors is not None and self._running[client] and free == 1:
            return False  # The last one is for others.
        return free > 0 and not self._rests.seconds_of(client, now)

    def _give_back(self, client: str) -> None:
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        self._hand_out()

    def _wait(self, client: str) -> "_Turn":
        """Return a turn, which comes when there is a thread for it. Raises Busy if there is no place."""
        if len(self._waiting) >= self._limits.waiting:
            refused = self._waiting.make_room_for(client)
            if refused is None:
                raise self._refuse()
            if not refused.comes.done():
                refused.comes.set_exception(self._refuse())
        turn = _Turn(client, asyncio.get_running_loop().create_future())
        self._waiting.put(client, turn)
        self._hand_out()
        return turn

    def _give_up(self, turn: "_Turn") -> None:
        comes = turn.comes
        if comes.done() and not comes.cancelled() and comes.exception() is None:
            self._give_back(turn.client)  # it came in the moment in which it was given up
        self._waiting.take_out(lambda waiting: waiting.comes.done())

    def _hand_out(self) -> None:
        """Give the threads that are free to those whose turn it is, now and when somebody has rested."""
        now = time.monotonic()  # Read once: whoever still rests by it is waited for, and the others have been served.
        while (client := self._next_client(now)) is not None:
            turn = self._waiting.pop_of(client)
            if not turn.comes.done():
                self._running[client] += 1
                turn.comes.set_result(None)
        if self._rested:
            self._rested.cancel()
        rests = [rest for client in self._waiting.participants if (rest := self._rests.seconds_of(client, now))]
        self._rested = asyncio.get_running_loop().call_later(min(rests), self._hand_out) if rests else None

    def _next_client(self, now: float) -> Hashable | None:
        return next((one for one in self._waiting.participants if self._may_have_thread(one, now)), None)

    def _refuse(self) -> Busy:
        """Count a request that is refused, and return what it is answered with."""
        REFUSED.labels(self._kind).inc()
        return Busy()

    def _transact(self, act: Callable[[Session], T], computed: "_Computed") -> T:
        with computed, self.db() as session:
            result = act(session)
            has_recorded = outbox.has_recorded(session)
            database.commit(session)
        if has_recorded:
            self._committed()
        return result


def recording_engines(writer_dbs: Collection[sessionmaker[Session]], bulkheads: Mapping[str, Bulkhead]) -> list[Engine]:
    """Return the engines through which a process records events."""
    of_bulkheads = [engine for kind in RECORDING & bulkheads.keys() for engine in bulkheads[kind].engines()]
    return [*(db.kw["bind"] for db in writer_dbs), *of_bulkheads]


@dataclass(frozen=True, slots=True)
class ClientBulkhead:
    """A bulkhead for the requests of one client."""

    bulkhead: Bulkhead
    principal: Principal

    async def run(self, act: Callable[[Session], T]) -> T:
        """Do what `Bulkhead.run` does."""
        return await self.bulkhead.run(act, self.principal)


class _Turn(NamedTuple):
    """What a request of a client waits for."""

    client: str
    comes: asyncio.Future[None]


class _Computed:
    """The time of the processor that a thread takes for the block."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.seconds = time.thread_time() - self._began
