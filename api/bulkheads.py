"""Bulkheads: each kind of request has its own threads and connections, so that slow ones delay no other kind.

Within a kind, the clients that wait for a thread take turns.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from api.fair_queue import FairQueue
from domain import outbox
from domain.access import ANONYMOUS, Principal
from domain.runtime import database
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
    given: after one that has computed for long, its thread is not used for a while. The threads of a process take turns
    on one processor, so who reads without pause would slow all others down.
    """

    threads: int
    waiting: int = 200
    wait_seconds: float = 2.0
    statement_seconds: int = 4
    transaction_seconds: float = 5.0
    lock_milliseconds: int = 2_000
    locked: "Limits | None" = None
    processors: float | None = None

    def rest_seconds(self, computed_seconds: float) -> float:
        """Return for how long a thread rests that has computed for so long."""
        return 0.0 if self.processors is None else computed_seconds * max(0.0, self.threads / self.processors - 1)


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
    "lists": Limits(threads=3, processors=0.3),
    # These compute for some milliseconds each, and for more if much is taken of many calendars.
    "availability": Limits(threads=2, processors=0.3),
    # Pages of the feed, and streams that have fallen behind its tail.
    "feed_pages": Limits(threads=2, processors=0.3),
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
        self._free = limits.threads
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()
        self._for_locked = (
            Bulkhead(f"{kind}_locked", settings, limits.locked, committed=committed) if limits.locked else None
        )

    async def run(self, act: Callable[[Session], T], principal: Principal = ANONYMOUS) -> T:
        """Return what `act` returns, in a transaction of its own. Raises Busy, OutcomeUnknown and what `act` raises.

        It may be called twice: the first transaction is then rolled back.
        """
        try:
            return await self._run(act, principal)
        except OperationalError as error:
            if self._for_locked is None or not database.is_lock_timeout(error):
                raise
        return await self._for_locked.run(act, principal)

    async def _run(self, act: Callable[[Session], T], principal: Principal) -> T:
        await self._get_thread(principal)
        loop = asyncio.get_running_loop()
        computed = _Computed()
        running = self._threads.submit(copy_context().run, self._transact, act, computed)

        def release() -> None:
            loop.call_later(self._limits.rest_seconds(computed.seconds), self._free_thread)

        # By the thread and not here: a request that its client has abandoned keeps the thread until it is done.
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(release))
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Wait for the requests in flight, and close the connections."""
        if self._for_locked:
            self._for_locked.close()
        self._threads.shutdown()
        self._engine.dispose()

    async def _get_thread(self, principal: Principal) -> None:
        if self._free:
            self._free -= 1
            return
        turn = self._wait(principal)
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                await turn
        except TimeoutError:
            self._give_up(turn)
            raise self._refuse() from None
        except (asyncio.CancelledError, Busy):
            self._give_up(turn)
            raise

    def _wait(self, principal: Principal) -> asyncio.Future[None]:
        """Return what is done when it is this request's turn to have a thread. Raises Busy if there is no place."""
        if len(self._waiting) >= self._limits.waiting:
            refused = self._waiting.make_room_for(principal.client_id)
            if refused is None:
                raise self._refuse()
            if not refused.done():
                refused.set_exception(self._refuse())
        turn = asyncio.get_running_loop().create_future()
        self._waiting.put(principal.client_id, turn)
        return turn

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._free_thread()  # the turn came in the moment in which it was given up
        self._waiting.take_out(asyncio.Future.done)

    def _free_thread(self) -> None:
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

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


@dataclass(frozen=True, slots=True)
class ClientBulkhead:
    """A bulkhead for the requests of one client."""

    bulkhead: Bulkhead
    principal: Principal

    async def run(self, act: Callable[[Session], T]) -> T:
        """Do what `Bulkhead.run` does."""
        return await self.bulkhead.run(act, self.principal)


class _Computed:
    """The time of the processor that a thread takes for the block."""

    seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.seconds = time.thread_time() - self._began
