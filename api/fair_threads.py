"""Threads that clients take turns at: one that asks for much, or whose calls take long, delays no other for long."""

import asyncio
import time
from collections import Counter as Occurrences
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import NamedTuple, TypeVar

from api.fair_queue import FairQueue
from api.rests import Rests
from domain.runtime.errors import Busy
from domain.runtime.metrics import Counter

T = TypeVar("T")

REFUSED = Counter(
    "holdfast_requests_refused_busy",
    "Requests answered 503 because no thread of their kind was free in time. Alert on any increase: requests of that"
    " kind are slow, or there are too many.",
    ["kind"],
)

#: How many calls may wait for a thread, and for how long each.
WAITING, WAIT_SECONDS = 200, 2.0


class FairThreads:
    """A limited number of threads, and a queue with a limit before them.

    A call that gets no thread within `wait_seconds` is refused. So is one that finds `waiting` others before it: or, in
    its place, one of the client that has the most there.

    All calls together take no more than `processors` of the processor's time in the long run, if that is given: clients
    that have computed for long rest, and none has all threads at a time. The threads of a process take turns on one
    processor, so who computes without pause would slow all others down.
    """

    def __init__(
        self,
        kind: str,
        threads: int,
        *,
        waiting: int = WAITING,
        wait_seconds: float = WAIT_SECONDS,
        processors: float | None = None,
    ) -> None:
        self._kind = kind
        self._most = threads
        self._most_waiting, self._wait_seconds = waiting, wait_seconds
        self._keeps_one_free = processors is not None
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=kind)
        self._running: Occurrences[Hashable] = Occurrences()
        self._rests = Rests(processors)
        self._waiting: FairQueue[_Turn] = FairQueue()
        self._rest_timer: asyncio.TimerHandle | None = None

    async def run(self, call: Callable[[], T], client: str) -> T:
        """Return what `call` returns, in a thread. Raises Busy and what it raises."""
        await self._get_thread(client)
        loop = asyncio.get_running_loop()
        computed = _Computed()
        running = self._threads.submit(copy_context().run, computed.of, call)

        def release() -> None:
            self._rests.charge(client, computed.seconds)
            self._give_back(client)

        # By the thread and not here: a request that its client has abandoned keeps the thread until it is done.
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(release))
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Wait for the calls in flight."""
        self._threads.shutdown()

    async def _get_thread(self, client: str) -> None:
        if self._may_have_thread(client, time.monotonic()):
            self._running[client] += 1
            return
        turn = self._wait(client)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await turn.comes
        except TimeoutError:
            self._give_up(turn)
            raise self._refuse() from None
        except (asyncio.CancelledError, Busy):
            self._give_up(turn)
            raise

    def _may_have_thread(self, client: Hashable, now: float) -> bool:
        free = self._most - self._running.total()
        if self._keeps_one_free and self._running[client] and free == 1:
            return False  # The last one is for others.
        return free > 0 and not self._rests.seconds_of(client, now)

    def _give_back(self, client: str) -> None:
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        self._hand_out()

    def _wait(self, client: str) -> "_Turn":
        """Return a turn, which comes when there is a thread for it. Raises Busy if there is no place."""
        if len(self._waiting) >= self._most_waiting:
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
        now = time.monotonic()  # One time for all: who rests still gets the timer below, and all others were served.
        while (client := self._next_client(now)) is not None:
            turn = self._waiting.pop_of(client)
            if not turn.comes.done():
                self._running[client] += 1
                turn.comes.set_result(None)
        if self._rest_timer:
            self._rest_timer.cancel()
        rests = [rest for client in self._waiting.participants if (rest := self._rests.seconds_of(client, now))]
        self._rest_timer = asyncio.get_running_loop().call_later(min(rests), self._hand_out) if rests else None

    def _next_client(self, now: float) -> Hashable | None:
        return next((one for one in self._waiting.participants if self._may_have_thread(one, now)), None)

    def _refuse(self) -> Busy:
        """Count a request that is refused, and return what it is answered with."""
        REFUSED.labels(self._kind).inc()
        return Busy()


class _Turn(NamedTuple):
    """What a call of a client waits for."""

    client: str
    comes: asyncio.Future[None]


class _Computed:
    """The time of the processor that a call takes."""

    seconds = 0.0

    def of(self, call: Callable[[], T]) -> T:
        """Return what a call returns."""
        began = time.thread_time()
        try:
            return call()
        finally:
            self.seconds = time.thread_time() - began
