"""Bulkheads: each kind of request has its own threads and connections, so that slow ones delay no other kind.

Within a kind, the clients that wait for a thread take turns.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from api.fair_threads import WAIT_SECONDS, WAITING, FairThreads
from domain import outbox
from domain.access import ANONYMOUS, Principal
from domain.runtime import database, database_errors
from domain.runtime.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one kind of request.

    `threads`, which is also the number of connections, `waiting`, `wait_seconds` and `processors` are those of
    FairThreads. A request that is refused there is answered 503. So is one that waits for the lock of a row for longer
    than `lock_milliseconds`; or it is tried again within the limits `locked`, if there are some, so that a row that
    stays locked delays only the requests for such rows.
    """

    threads: int
    waiting: int = WAITING
    wait_seconds: float = WAIT_SECONDS
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
    # The poller of the bookings for which requests wait, of which there is one.
    "waits": Limits(threads=1, processors=0.1),
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
        self._committed = committed
        self._engine = database.connect(
            settings,
            connections=limits.threads,
            statement_seconds=limits.statement_seconds,
            transaction_seconds=limits.transaction_seconds,
            lock_milliseconds=limits.lock_milliseconds,
        )
        self.db: sessionmaker[Session] = database.sessions(self._engine)
        self._threads = FairThreads(
            kind,
            limits.threads,
            waiting=limits.waiting,
            wait_seconds=limits.wait_seconds,
            processors=limits.processors,
        )
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
            return await self._threads.run(partial(self._transact, act), principal.client_id)
        except OperationalError as error:
            if self._for_locked is None or not database_errors.is_lock_timeout(error):
                raise
        return await self._for_locked.run(act, principal)

    def close(self) -> None:
        """Wait for the requests in flight, and close the connections."""
        if self._for_locked:
            self._for_locked.close()
        self._threads.close()
        self._engine.dispose()

    def _transact(self, act: Callable[[Session], T]) -> T:
        with self.db() as session:
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
