"""Threads that call a destination: every sink or step that needs such threads gets them here."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from domain.outbox import InFlight, Outcome, is_taken

#: How the names of these threads begin.
PREFIX = "calls"

#: For each call that may be waited for, so many more may hang while others are answered.
HANGING_FOR_EACH = 4


def pool(concurrency: int) -> ThreadPoolExecutor:
    """Return a pool of at most `concurrency` threads. `any_alive` knows them, so they can't delay the exit."""
    return ThreadPoolExecutor(concurrency, thread_name_prefix=PREFIX)


def any_alive() -> bool:
    """Return whether a thread of any pool is alive. When all pools are closed, such a thread waits for an answer."""
    return any(thread.name.startswith(PREFIX) for thread in threading.enumerate())


def most(concurrency: int) -> int:
    """Return how many calls there may be at a time, those that hang included."""
    # What had been submitted to a pool before another one took its place may still begin.
    return concurrency * (HANGING_FOR_EACH + 2)


class CallingThreads:
    """The threads that call one destination: as many as it allows, and others in place of those whose calls hang.

    A call that outlasts its batch holds its thread until it ends. If the destination takes other rows in time, those
    calls are to blame: when they hold half of the threads, a new pool takes the place of the present one, until
    HANGING_FOR_EACH times as many hang. If it takes none in time, it is slow or down, and gets no further threads.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lock = threading.RLock()
        self._pool = pool(concurrency)
        #: Whether a row was taken in time since the present pool began.
        self._has_taken = False
        #: The calls that hang, in all pools, and those that hold threads of the present one.
        self._hanging = self._held = 0

    def submit(self, act: Callable[..., None], *arguments: object) -> None:
        with self._lock:
            self._pool.submit(act, *arguments)

    def has_room(self, unsettled: int) -> bool:
        """Return whether a call may begin now or soon: not all threads are held by calls that hang.

        Those that have ended and are `unsettled` count as well: what they say is not known to others yet.
        """
        return self._held + unsettled < self._concurrency

    def is_crowded(self) -> bool:
        """Return whether calls that hang hold half of the threads that they may hold."""
        return self._hanging * 2 >= HANGING_FOR_EACH * self._concurrency

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Note what a batch was answered, and which of its calls have outlasted it."""
        with self._lock:
            for outcome in outcomes:
                self._has_taken = self._has_taken or is_taken(outcome)
                if isinstance(outcome, InFlight):
                    self._hanging += 1
                    self._held += 1
                    outcome.answer.add_done_callback(partial(self._note_end, self._pool))
            if self._has_taken and self._is_half_held() and self._hanging <= HANGING_FOR_EACH * self._concurrency:
                self._replace_pool()

    def close(self) -> None:
        with self._lock:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _is_half_held(self) -> bool:
        return self._held * 2 >= self._concurrency

    def _replace_pool(self) -> None:
        # Its threads end when they have done what was submitted.
        self._pool.shutdown(wait=False)
        self._pool = pool(self._concurrency)
        self._held, self._has_taken = 0, False

    def _note_end(self, of: ThreadPoolExecutor, _: Future[Outcome]) -> None:
        # A late answer does not show that others are answered in time. A slow destination gets no more calls.
        with self._lock:
            self._hanging -= 1
            self._held -= of is self._pool
