"""The dispatcher: each destination has threads of its own, so a slow one takes none from the others."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

import structlog
from sqlalchemy.exc import SQLAlchemyError

from domain.runtime.rounds import isolate_round
from worker.destinations import STEPS
from worker.ordering import calling_threads
from worker.relay.relay import Claimed, Relay

#: A thread that has been busy for longer calls `busy`, once.
BUSY_SECONDS = 0.1

#: While a thread of a destination has drained its lanes for less than this, what becomes due is left to it: a few rows
#: together cost hardly more than one, and many threads would only wait for each other. If it takes so many times as
#: long as it usually does, as when a call hangs, another thread is started.
LEAST_PATIENCE_SECONDS = 0.05
TIMES_USUAL = 3.0

#: The drained lanes whose median says how long one usually takes.
LANES = 20

#: No destination is left to one thread for longer.
MOST_PATIENCE_SECONDS = 1.0

LONG_AGO = float("-inf")

NOT_LOOKED = (
    "Whether other threads were needed was not looked for this time; it is at the next wake-up. If this continues,"
    " report the error."
)

log = structlog.get_logger()


class Dispatcher:
    """Claims lanes, and has each drained by a thread of its destination. Safe for threads.

    A destination has at most so many `threads`, and drains as many lanes at a time. They are started when they are
    needed. What all of them share, the connections to PostgreSQL, each of them uses for a few milliseconds at a time.
    """

    def __init__(self, relay: Relay, *, threads: int, busy: Callable[[], None] = lambda: None) -> None:
        """`busy` is called by a thread that does not end soon: others may help."""
        self._relay = relay
        self._busy = busy
        self._pools = {name: calling_threads.pool(threads) for name in relay.destinations}
        self._threads = threads
        self._changed = threading.Condition()
        self._free = dict.fromkeys(self._pools, threads)
        #: The destinations that had no free thread when lanes were last claimed: some may have become due since then.
        self._missed: set[str] = set()
        #: When a thread of a destination last began to drain a lane, and how long the last ones took, in seconds.
        self._begun = dict.fromkeys(self._pools, LONG_AGO)
        self._took = {name: deque([0.0], maxlen=LANES) for name in self._pools}
        self._left = threading.Event()
        threading.Thread(target=self._look_again, name="dispatcher", daemon=True).start()
        relay.late_answers.settled = self.dispatch

    def dispatch(self) -> None:
        """Have all lanes with due rows drained, as far as there are threads. It does not wait for that."""
        while claimed := self._relay.claim(self._with_room()):
            self._start(claimed)

    def close(self, seconds: float) -> None:
        """Wait for the threads to end, for so long at the most. The relay is stopping."""
        with self._changed:
            self._changed.wait_for(lambda: all(free == self._threads for free in self._free.values()), seconds)
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _with_room(self) -> Sequence[str]:
        with self._changed:
            busy = {name for name in self._free if not self._has_room(name)}
            self._missed |= busy
            return [name for name in self._free if name not in busy]

    def _has_room(self, name: str) -> bool:
        """Return whether a destination may have another thread."""
        free = self._free[name]
        if 0 < free < self._threads and time.monotonic() < self._begun[name] + self._patience_seconds(name):
            self._left.set()
            return False
        return free > 0

    def _patience_seconds(self, name: str) -> float:
        usual = TIMES_USUAL * median(self._took[name])
        return min(max(LEAST_PATIENCE_SECONDS, usual), MOST_PATIENCE_SECONDS)

    def _look_again(self) -> None:
        """Start another thread for what was left to one that takes longer than expected."""
        while self._left.wait() and not self._relay.stopping.wait(LEAST_PATIENCE_SECONDS):
            self._left.clear()
            isolate_round(self.dispatch, thread="dispatcher", advice=NOT_LOOKED)

    def _start(self, claimed: Claimed) -> None:
        name = claimed.batch.lane.destination
        with self._changed:
            has_room = self._free[name] > 0
            self._free[name] -= has_room
            self._begun[name] = time.monotonic() if claimed.batch.has_few else LONG_AGO
            if not has_room:
                self._missed.add(name)
        if has_room:
            self._pools[name].submit(self._run, name, claimed)
        else:
            claimed.run.release(claimed.batch)  # Another thread has dispatched to the destination meanwhile.

    def _run(self, name: str, claimed: Claimed | None) -> None:
        """Drain lane after lane, until none has due rows."""
        begun, has_called = time.monotonic(), False
        while claimed or not self._end(name):
            claimed = self._drain(name, claimed)
            if claimed and not has_called and time.monotonic() - begun > BUSY_SECONDS:
                has_called = True
                self._busy()

    def _drain(self, name: str, claimed: Claimed | None) -> Claimed | None:
        """Drain a lane, and claim the next one. After an error there is none: the next wake-up tries again."""
        try:
            if claimed and self._drained(name, claimed) and name in STEPS:
                # The answers to a step have recorded events for other destinations.
                self.dispatch()
            # This claim finds what became due before it.
            with self._changed:
                self._missed.discard(name)
            return self._relay.claim([name])
        except SQLAlchemyError as error:
            log.warning("relay.interrupted", destination=name, error=type(error).__name__)
        # Nobody waits for this thread, so nobody else would say it.
        except Exception:
            log.exception("relay.failed", destination=name)
        return None

    def _drained(self, name: str, claimed: Claimed) -> int:
        """Drain a lane, and return how many rows were processed."""
        begun = time.monotonic()
        # A backlog is for as many threads as there are.
        self._begun[name] = begun if claimed.batch.has_few else LONG_AGO
        processed = self._relay.drain(claimed).processed
        if claimed.batch.has_few:
            self._took[name].append(time.monotonic() - begun)
        return processed

    def _end(self, name: str) -> bool:
        """Give the thread back. Return False if it is still needed: nobody had one when a lane may have become due."""
        with self._changed:
            if name in self._missed:
                self._missed.remove(name)
                return False
            self._free[name] += 1
            self._changed.notify_all()
            return True
