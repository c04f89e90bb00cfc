"""Groups of methods: how many of their calls are answered at a time, in all and for one client."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from api.fair_queue import who_makes_room
from api.grpc.time_limits import TimeLimit

#: This part of the calls may wait for keys. Others that would have to are refused.
WAITING = 8


class Group:
    """Methods that share places for `most` calls at a time, of which one client has at most `share`.

    Each call that has a place has a thread. `waits` are for those that wait for the keys of credentials: there are
    threads for them besides, because such a call waits on when it has made room for another one. `receiving` limits
    the time in which a call's message must come. In a group that `makes_room`, a call that finds no place ends the
    oldest call of the client that has the most, if that client would still have as many as its own.
    """

    def __init__(self, name: str, *, most: int, share: int, receiving: TimeLimit, makes_room: bool = False) -> None:
        most_waiting = max(1, most // WAITING)
        self.threads = ThreadPoolExecutor(most + most_waiting, thread_name_prefix=name)
        self.waits = threading.Semaphore(most_waiting)
        self.receiving = receiving
        self._share = share
        self._makes_room = makes_room
        self._lock = threading.Lock()
        self._free = most
        self._taken: Counter[str] = Counter()
        #: The calls that have begun, and their clients, the oldest first.
        self._begun: dict[grpc.ServicerContext, str] = {}

    def is_used(self) -> bool:
        """Return whether a call has a place."""
        return bool(self._taken)

    def take(self, client: str) -> bool:
        """Take a place for a call of this client. Return whether there was one."""
        with self._lock:
            if self._taken[client] >= self._share:
                return False
            ended = None if self._free else self._end_one_for(client)
            if not self._free:
                return False
            self._free -= 1
            self._taken[client] += 1
        if ended:
            ended.cancel()
        return True

    @contextmanager
    def place(self, context: grpc.ServicerContext, client: str) -> Iterator[None]:
        """Give back the place that was taken for a call of this client, after the block."""
        with self._lock:
            self._begun[context] = client
        try:
            yield
        finally:
            with self._lock:
                self._give_back(context)

    def _end_one_for(self, client: str) -> grpc.ServicerContext | None:
        """Give back the place of a call that makes room for one of this client. Return the call."""
        largest = who_makes_room(self._taken, client) if self._makes_room else None
        oldest = next((context for context, of in self._begun.items() if of == largest), None)
        if oldest:
            self._give_back(oldest)
        return oldest

    def _give_back(self, context: grpc.ServicerContext) -> None:
        client = self._begun.pop(context, None)
        if client is None:
            return  # It has made room for another one.
        self._free += 1
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]
