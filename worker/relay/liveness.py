"""Liveness: a process shows that it lives by a lock in PostgreSQL, and watches the lock of another process."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from domain import outbox
from domain.outbox import LivenessKeys
from domain.runtime.direct_connections import PoolerBetween, open_direct
from domain.runtime.rounds import isolate_round
from domain.runtime.settings import Settings

#: How long one statement waits for the end of another process. It keeps VACUUM from removing what has become dead since
#: it began, so it is short. It is also shorter than the second after which PostgreSQL looks for deadlocks, and may log
#: whoever still waits.
WAIT_SECONDS = 0.5

#: The time between two attempts to get a lock, while PostgreSQL can't be reached.
RETRY_SECONDS = 0.5

#: A lane of a dead process may still be locked by its last transaction, which PostgreSQL is about to end.
LOCKED_LANE_SECONDS = 0.05

#: When a process gets its lock back, PostgreSQL may have restarted, and all others have lost theirs as well. This is
#: their time to get new ones, before their lanes are freed.
OTHERS_RECONNECT_SECONDS = 2.0

#: A stop waits for this long at most for the thread, which ends by itself.
CLOSE_SECONDS = 2.0

OFF = (
    "A pooler such as PgBouncer is between this process and PostgreSQL. So if this process is killed, others continue"
    " with its events only when its leases are over, after 4 s, and not at once. Set DATABASE_DIRECT_URL to the address"
    " of PostgreSQL itself to change that."
)
ELSEWHERE = (
    "DATABASE_DIRECT_URL leads to another database than DATABASE_URL, where no other worker would see that this process"
    " lives. So if it is killed, others continue with its events only when its leases are over, after 4 s, and not at"
    " once. Set DATABASE_DIRECT_URL to the same database, without a pooler, or remove it."
)
LOST = (
    "The connection by which other workers see that this process lives is broken. Deliveries continue. Others may begin"
    " to deliver what is in flight here, so some events may be sent twice. The process connects again by itself; if it"
    " can't, look at PostgreSQL and the network."
)
NEVER_CONNECTED = (
    "This process can't open the connection by which other workers see that it lives: to DATABASE_DIRECT_URL or,"
    " without that, to DATABASE_URL. Deliveries continue. If this process is killed, others continue with its events"
    " only when its leases are over, after 4 s. It tries again by itself: check that variable, and how many connections"
    " PostgreSQL allows."
)
UNWATCHED = (
    "This process can't open its second connection to PostgreSQL, by which it notices that another one has died."
    " It looks twice a second instead. Check how many connections PostgreSQL allows."
)
DIED = (
    "A worker process has ended, or lost its connection to PostgreSQL, without releasing its lanes. What it had in"
    " flight is delivered by others now; some of these events may be sent twice. If nobody has killed it, its log and"
    " the one of the system say why it ended."
)

UNEXPECTED = (
    "Whether other workers live was not looked for this time; it is the next time. If this continues, the work of a"
    " killed worker waits until its leases are over, after 4 s: report the error."
)

NOT_CLAIMED = (
    "Lanes of a dead worker were freed, and were not claimed by this process: any process claims them at the next"
    " wake-up. If this continues, look at PostgreSQL."
)

log = structlog.get_logger()


class LockedElsewhere(Exception):
    """Raised when others do not see the lock of this process, as it is in another database."""


class Liveness:
    """The lock by which others see that this process lives, and the watch over another process.

    No trouble with it stops a delivery: then only the leases say who lives.
    """

    def __init__(self, settings: Settings, db: sessionmaker[Session]) -> None:
        self._url = settings.database_direct_url or settings.database_url
        self._db = db
        self._lock_connection: Connection | None = None
        self._key: int | None = None
        self._lost_key: int | None = None
        self._has_trouble = False
        self._has_connected = False
        #: Whether this process has ever freed lanes or calls of another one.
        self._has_freed = False
        self._may_free_from = 0.0
        self._watch: Watch | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)

    def key(self) -> int | None:
        """Return the key that claims carry, or None while this process has none."""
        return self._key

    def start(self) -> None:
        """Lock a key, free the lanes of processes that are dead, and keep doing both in a thread."""
        self._examine()
        self._thread.start()

    def watch(self, take_over: Callable[[], None]) -> None:
        """From now on wait for the end of another process as well. `take_over` is called when lanes were freed.

        Some may have been freed when this process started.
        """
        self._watch = Watch(self._url, take_over)
        if self._has_freed:
            self._watch.take_over()

    def close(self) -> None:
        """Stop watching, and let others see that this process has ended. Its lanes are released."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            isolate_round(self._round, thread="liveness", advice=UNEXPECTED)
        self._key = None
        self._close()

    def _round(self) -> None:
        self._wait(self._examine())

    def _examine(self) -> LivenessKeys | None:
        """Free the lanes of dead processes. Return who lives and who is dead, or None if that is not known."""
        try:
            with Session(self._held()) as session:
                keys = outbox.find_liveness_keys(session)
                may_free = keys.dead and time.monotonic() >= self._may_free_from
                freed = outbox.free_lanes(session, keys.dead) if may_free else ()
                rows = outbox.free_calls(session, keys.dead) if may_free else 0
        except (PoolerBetween, LockedElsewhere) as error:
            self._switch_off(OFF if isinstance(error, PoolerBetween) else ELSEWHERE)
            return None
        except SQLAlchemyError as error:
            self._lose(error)
            return None
        if freed or rows:
            self._report(freed, rows)
        return keys

    def _held(self) -> Connection:
        """Return the connection that holds the lock of this process; if there is none, open one with a new key."""
        if self._lock_connection is None:
            self._lock_connection = open_direct(self._url, application_name="holdfast-liveness")
            with Session(self._lock_connection) as session:
                key = outbox.lock_liveness_key(session)
                self._require_seen(key)
                if self._lost_key is not None:
                    outbox.adopt(session, lost=self._lost_key, key=key)
                    self._may_free_from = time.monotonic() + OTHERS_RECONNECT_SECONDS
            self._key, self._lost_key = key, None
            self._has_connected = True
            if self._has_trouble:
                self._has_trouble = False
                log.info("liveness.restored")
        return self._lock_connection

    def _require_seen(self, key: int) -> None:
        """Raise LockedElsewhere unless those who use DATABASE_URL see the lock. They would free every lane with it."""
        with self._db.begin() as session:
            if key not in outbox.find_liveness_keys(session).live:
                raise LockedElsewhere

    def _lose(self, error: SQLAlchemyError) -> None:
        """Give up the connection that holds the lock: from now on claims carry no key, until there is a new one."""
        self._lost_key = self._lost_key if self._key is None else self._key
        self._key = None
        self._close()
        if not self._has_trouble:
            self._has_trouble = True
            log.warning("liveness.lost", error=str(error.__cause__ or error).splitlines()[0], advice=self._advice())

    def _advice(self) -> str:
        return LOST if self._has_connected else NEVER_CONNECTED

    def _switch_off(self, advice: str) -> None:
        self._key = None
        self._stopped.set()
        log.warning("liveness.off", advice=advice)

    def _report(self, freed: Sequence[str], rows: int) -> None:
        # A holder's name ends in digits that differ from lane to lane.
        workers = sorted({holder.rsplit(":", 1)[0] for holder in freed})
        self._has_freed = True
        log.warning("worker.died", workers=workers, lanes=len(freed), calls=rows, advice=DIED)
        if self._watch is not None:
            self._watch.take_over()

    def _wait(self, keys: LivenessKeys | None) -> None:
        """Wait until another process has ended, or it is time to look again."""
        if keys is None:
            self._stopped.wait(RETRY_SECONDS)
        elif keys.dead:
            self._stopped.wait(LOCKED_LANE_SECONDS)
        elif not self._waits_for(outbox.neighbour_of(self._key, keys.live)):
            self._stopped.wait(WAIT_SECONDS)

    def _waits_for(self, neighbour: int | None) -> bool:
        return self._watch is not None and neighbour is not None and self._watch.wait(neighbour)

    def _close(self) -> None:
        _close(self._lock_connection)
        self._lock_connection = None
        if self._watch is not None:
            self._watch.close()


class Watch:
    """The connection on which a process waits for the end of another one. It holds no lock, so nothing can deadlock."""

    def __init__(self, url: str, take_over: Callable[[], None]) -> None:
        self._url = url
        self._take_over = take_over
        self._connection: Connection | None = None
        self._has_trouble = False

    def wait(self, key: int) -> bool:
        """Wait until the process with this key has ended, for WAIT_SECONDS at most. Return False if that fails."""
        try:
            with Session(self._opened()) as session:
                outbox.wait_for_end(session, key)
        except (SQLAlchemyError, PoolerBetween) as error:
            self._report(error)
            self.close()
            return False
        self._has_trouble = False
        return True

    def take_over(self) -> None:
        """Have the lanes that were freed drained. Whatever fails there, the watch continues."""
        isolate_round(self._take_over, thread="liveness", advice=NOT_CLAIMED)

    def close(self) -> None:
        _close(self._connection)
        self._connection = None

    def _opened(self) -> Connection:
        if self._connection is None:
            milliseconds = int(WAIT_SECONDS * 1_000)
            self._connection = open_direct(self._url, application_name="holdfast-watch", lock_milliseconds=milliseconds)
        return self._connection

    def _report(self, error: Exception) -> None:
        """Report that the connection can't be opened, once. If one has broken, it is opened again without a word."""
        if self._connection is None and not self._has_trouble:
            self._has_trouble = True
            log.warning("liveness.unwatched", error=type(error).__name__, advice=UNWATCHED)


def _close(connection: Connection | None) -> None:
    """Close a connection, which may be broken. It is not reset, as a connection is that returns to a pool."""
    if connection is not None:
        with suppress(SQLAlchemyError):
            connection.invalidate()
            connection.close()
